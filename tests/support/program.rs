//! Programs of others that the tests run to their end: clients, and senders of what no client should.

use std::process::{Command, Output};

use super::python::skip;

/// Runs `program`. None, with a line on stderr, where it is missing; a failure where `CI` is set.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{program}: {error}"),
        Err(error) => {
            skip(&format!("no {program}: {error}"));
            None
        }
    }
}

/// The same of a program that must succeed; what it says on both streams.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = output(program, arguments)?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    Some(said.into_owned())
}
