//! Clients written in Python: a script of `tests/interop`, told what to do by its arguments, that prints what came of
//! it as lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::python;

/// A client at work; it ends with this value.
pub(crate) struct PythonClient {
    process: Child,
    output: BufReader<ChildStdout>,
}

/// The interpreter that has HTTP/2 and gRPC. None, with a line on stderr, where it cannot be had.
pub(crate) fn interpreter() -> Option<PathBuf> {
    let packages: Vec<_> = include_str!("../interop/http2-requirements.txt").lines().collect();
    Some(python::environment("http2", &packages)?.join("bin/python"))
}

impl PythonClient {
    /// Starts `script` with these arguments.
    pub(crate) fn start(python: &Path, script: &str, arguments: &[String]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        let mut process = Command::new(python)
            .arg(path)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is installed");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, output }
    }

    /// Waits for its next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("reads");
        assert!(!line.is_empty(), "the client failed: see above");
        line.trim().to_owned()
    }

    /// Waits for its last line: what came of it.
    pub(crate) fn story(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Lets it go on.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.process.stdin.as_mut().expect("piped")).expect("it reads");
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}
