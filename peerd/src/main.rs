//! The program `peerd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerd::program::main()
}
