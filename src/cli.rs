//! The command line. Each command returns a result; only [`run`] prints its error and sets the exit code.
//!
//! Data goes to stdout, everything else to stderr. If the reader of the output closes the pipe, the command succeeds.

mod args;
mod context;
mod failure;
mod output;
mod row;

mod check;
mod demo;
mod explain;
mod serve;
mod session;
mod table;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Command, CommandLine, Completions, SessionCommand, TableCommand};
use failure::{CommandResult, Failure, Kind};
use output::{BAD, NOTE};

/// Parses `args`, which include the program's name, and runs the command.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        // clap returns the help and the version as errors, too.
        Err(error) => {
            let printed = error.print();
            return match u8::try_from(error.exit_code()) {
                Ok(0) => exit_code(printed.map_err(Failure::from)),
                Ok(code) => ExitCode::from(code),
                Err(_) => Kind::Usage.exit_code(),
            };
        }
    };
    exit_code(dispatch(line))
}

fn dispatch(line: CommandLine) -> CommandResult {
    let file = &line.file;
    match line.command {
        None | Some(Command::Serve) => serve::run(file),
        Some(Command::Check(args)) => check::run(&args, file),
        Some(Command::Demo(_) | Command::Completions(_)) if file.config.is_some() => {
            Err(Failure::usage("this command uses no configuration file").hint("omit `--config`"))
        }
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Table(TableCommand::Create(args))) => table::create(&args, file),
        Some(Command::Table(TableCommand::Show(args))) => table::show(&args, file),
        Some(Command::Table(TableCommand::Policy(args))) => table::policy(&args, file),
        Some(Command::Session(SessionCommand::Create(args))) => session::create(args, file),
        Some(Command::Session(SessionCommand::Show(args))) => session::show(&args, file),
        Some(Command::Session(SessionCommand::List(args))) => session::list(&args, file),
        Some(Command::Session(SessionCommand::Revoke(args))) => session::revoke(&args, file),
        Some(Command::Session(SessionCommand::Purge(args))) => session::purge::run(&args, file),
        Some(Command::Explain(args)) => explain::run(&args, file),
        Some(Command::Completions(args)) => completions(&args),
    }
}

fn completions(args: &Completions) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "sessiongate", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Prints the error of a failed command, and returns the exit code.
fn exit_code(result: CommandResult) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if failure.kind != Kind::BrokenPipe {
        // If stderr is closed too, the exit code alone reports the failure.
        let _ = report(&failure);
    }
    failure.kind.exit_code()
}

fn report(failure: &Failure) -> io::Result<()> {
    let mut stderr = output::stderr();
    writeln!(stderr, "{BAD}error{BAD:#}: {}", failure.message)?;
    if let Some(hint) = &failure.hint {
        writeln!(stderr, "\n{NOTE}hint{NOTE:#}: {hint}")?;
    }
    Ok(())
}

/// Runs a command's future to completion on this thread.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start the async runtime: {error}")))?
        .block_on(work)
}
