//! What the demo tells a newcomer: what to open, what to paste, and what it will show.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cli::output::{self, BOLD, DIM, NOTE};
use crate::session::reference::Ref;

#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) gateway: SocketAddr,
    /// The port that was asked for and could not be had.
    pub(super) port_was_taken: Option<u16>,
    /// Makes its visitor alice.
    pub(super) link: String,
    /// Alice's cookie, as `name=value`.
    pub(super) cookie: String,
    /// The configuration.
    pub(super) file: PathBuf,
}

impl Welcome {
    pub(super) fn print(&self, session: Ref) -> io::Result<()> {
        let Self { gateway, link, cookie, .. } = self;
        let url = format!("http://{gateway}");
        let mut out = output::stdout();
        writeln!(
            out,
            "{BOLD}sessiongate{BOLD:#} stands at {url}, in front of an app that knows nothing of sessions\n"
        )?;
        if let Some(port) = self.port_was_taken {
            writeln!(out, "{NOTE}note{NOTE:#}: port {port} is taken, so this is another one\n")?;
        }
        let mut section = |title: &str, lines: &[(&str, &str)]| -> io::Result<()> {
            writeln!(out, "{BOLD}{title}{BOLD:#}")?;
            for (line, about) in lines {
                writeln!(out, "  {line}")?;
                if !about.is_empty() {
                    writeln!(out, "      {DIM}{about}{DIM:#}")?;
                }
            }
            writeln!(out)
        };
        section(
            "Open in a browser",
            &[
                (&format!("{url}/"), "a stranger, who may log in, count and log out there"),
                (link, "the same page, as alice; again at any time"),
            ],
        )?;
        section(
            "Or paste into another terminal",
            &[
                (&format!("curl {url}/"), "anonymous"),
                (
                    &format!("curl -b '{cookie}' {url}/"),
                    "alice, by her cookie; the demo keeps this session alive",
                ),
                (&format!("curl -i {url}/members"), "refused: the app is not even asked"),
                (
                    &format!("curl -b '{cookie}' {url}/admin"),
                    "her session holds the role that this page wants",
                ),
                (&format!("curl -i -d name=Mallory {url}/log-in"), "a form from elsewhere: refused"),
                (&format!("curl -H 'X-User: root' {url}/"), "a lie: scrubbed"),
                (
                    &format!("curl -H 'X_User: root' {url}/"),
                    "the spelling that fools CGI and WSGI apps: scrubbed, too",
                ),
            ],
        )?;
        section(
            "Look into the table, and end that session of alice's",
            &[
                (&self.command("session list --claims", None), ""),
                (&self.command(&format!("explain --path /admin --cookie '{cookie}'"), None), ""),
                (&self.command("session revoke", Some(session)), ""),
            ],
        )?;
        writeln!(
            out,
            "In a browser, a session lasts 60 s, and the page shows how many are left. A request that comes 10 s after \
             it was last written reissues it: the deadline moves.\n{BOLD}Ctrl-C{BOLD:#} ends the demo and leaves nothing behind. Live:\n"
        )?;
        out.flush()
    }

    /// The command that ends `session`.
    pub(super) fn revocation(&self, session: Ref) -> String {
        self.command("session revoke", Some(session))
    }

    fn command(&self, command: &str, session: Option<Ref>) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sessiongate"));
        let session = session.map(|session| format!(" {session}")).unwrap_or_default();
        format!("{} {command}{session} --config {}", quoted(&program), quoted(&self.file))
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/x-1/gateway.toml")), "/tmp/x-1/gateway.toml");
        assert_eq!(quoted(Path::new("/My Files/x")), "'/My Files/x'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}
