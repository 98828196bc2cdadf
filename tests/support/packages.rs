//! Pinned packages of Python and Node.js, which are installed under `target/interop` on first use.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An interpreter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runtime {
    Node,
    Python,
}

impl Runtime {
    /// Returns a command that runs a script with exactly `packages`, and their dependencies, installed in the directory
    /// `name`. If they cannot be installed, calls [`skip`] and returns `None`.
    pub(crate) fn command(self, name: &str, packages: &[&str]) -> Option<Command> {
        let directory = install(self, name, packages)?;
        Some(match self {
            Self::Node => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", directory.join("node_modules"));
                command
            }
            Self::Python => {
                let mut command = Command::new(directory.join("bin/python"));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        })
    }
}

/// Installs `packages` and their dependencies in a directory of their own, unless they are there, and returns it.
/// If that fails, calls [`skip`] and returns `None`.
pub(crate) fn install(runtime: Runtime, name: &str, packages: &[&str]) -> Option<PathBuf> {
    match try_install(runtime, name, packages) {
        Ok(directory) => Some(directory),
        Err(reason) => {
            skip(&format!("cannot install the packages `{name}`: {reason}"));
            None
        }
    }
}

/// Writes to stderr that a test is skipped: directly, because the test runner hides what a passing test prints.
///
/// Panics if `CI` is set, because there a skipped test would look like a passed one.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
}

/// Returns the directory of the packages and of the scripts' logs.
pub(crate) fn interop_directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent");
    let directory = target.join("interop");
    fs::create_dir_all(&directory).expect("target/interop can be made");
    directory
}

fn try_install(runtime: Runtime, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let directory = interop_directory().join(name);
    let marker = directory.join("installed");
    let wanted = packages.join("\n");

    // One test installs the packages while the others wait here. The system releases the lock when the process ends.
    let lock = File::create(directory.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    let _ = fs::remove_dir_all(&directory);
    match runtime {
        Runtime::Node => {
            fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            let manifest = directory.join("package.json");
            fs::write(manifest, "{\"private\":true}").map_err(|error| error.to_string())?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]);
            run(npm.args(packages).current_dir(&directory))?;
        }
        Runtime::Python => {
            run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
            let mut pip = Command::new(directory.join("bin/python"));
            run(pip.args(["-m", "pip", "install", "--quiet", "--no-input"]).args(packages))?;
        }
    }
    // Written last, so that an interrupted installation starts over.
    fs::write(&marker, wanted).map_err(|error| error.to_string())?;
    Ok(directory)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
