//! The command `sessiongate`: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessiongate::cli::run(std::env::args_os())
}
