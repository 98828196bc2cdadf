//! The `sessiongate` command. Everything but the entry point is in the library.

use std::process::ExitCode;

/// glibc's allocator would keep the memory of closed connections for later use.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sessiongate::cli::run(std::env::args_os())
}
