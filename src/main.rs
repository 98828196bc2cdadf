//! The `sessiongate` command. Everything but the entry point is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessiongate::cli::run(std::env::args_os())
}
