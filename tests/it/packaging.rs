//! The systemd units of `packaging/`.

use std::process::Command;

const SERVICE: &str = include_str!("../../packaging/sessiongate.service");
const SOCKET: &str = include_str!("../../packaging/sessiongate.socket");

/// Returns the value of `key` in the last line that sets it.
fn value<'u>(unit: &'u str, key: &str) -> Option<&'u str> {
    let pairs = unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.rev().find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[test]
fn service_reads_an_optional_environment_file() {
    assert_eq!(value(SERVICE, "EnvironmentFile"), Some("-/etc/sessiongate/environment"));
}

/// Core dumps would contain keys, cookies and claims.
#[test]
fn service_writes_no_core_dumps() {
    assert_eq!(value(SERVICE, "LimitCORE"), Some("0"));
}

#[test]
fn systemd_accepts_the_units() {
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_sessiongate");
    for (name, unit) in [("sessiongate.service", SERVICE), ("sessiongate.socket", SOCKET)] {
        let unit = unit.replace("/usr/bin/sessiongate", program);
        std::fs::write(directory.path().join(name), unit).unwrap();
    }
    let units = ["sessiongate.service", "sessiongate.socket"].map(|name| directory.path().join(name));
    // `--man=no`: the manual need not be installed.
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output();
    // Skipped on machines without systemd.
    let Ok(verified) = verified else { return };
    let errors = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && errors.trim().is_empty(), "{errors}");
}
