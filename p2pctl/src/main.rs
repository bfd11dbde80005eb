//! The program `p2pctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pctl::main()
}
