//! The program `registry`.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::program::main()
}
