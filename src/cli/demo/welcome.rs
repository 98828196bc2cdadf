//! The demo's introduction: links to open and commands to paste.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cli::output::{self, BOLD, DIM, NOTE};
use crate::session::reference::Ref;

#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) gateway: SocketAddr,
    /// The requested port, if it was in use.
    pub(super) port_in_use: Option<u16>,
    /// The link that logs a browser in as alice.
    pub(super) link: String,
    /// Alice's cookie, as `name=value`.
    pub(super) cookie: String,
    /// The path of the configuration file.
    pub(super) file: PathBuf,
}

impl Welcome {
    pub(super) fn print(&self, session: Ref) -> io::Result<()> {
        let Self { gateway, link, cookie, .. } = self;
        let url = format!("http://{gateway}");
        let mut out = output::stdout();
        writeln!(
            out,
            "{BOLD}sessiongate{BOLD:#} runs at {url}, in front of an app that knows nothing about sessions\n"
        )?;
        if let Some(port) = self.port_in_use {
            writeln!(out, "{NOTE}note{NOTE:#}: port {port} is in use, so a free one was chosen\n")?;
        }
        let mut section = |title: &str, lines: &[(&str, &str)]| -> io::Result<()> {
            writeln!(out, "{BOLD}{title}{BOLD:#}")?;
            for (line, description) in lines {
                writeln!(out, "  {line}")?;
                if !description.is_empty() {
                    writeln!(out, "      {DIM}{description}{DIM:#}")?;
                }
            }
            writeln!(out)
        };
        section(
            "Open in a browser",
            &[
                (
                    &format!("{url}/"),
                    "a page for an anonymous visitor, with forms to log in, count and log out",
                ),
                (link, "the same page, logged in as alice; the link can be used again"),
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
                (&format!("curl -i {url}/members"), "refused: the request does not reach the app"),
                (
                    &format!("curl -b '{cookie}' {url}/admin"),
                    "allowed: her session has the role that this route requires",
                ),
                (&format!("curl -i -d name=Mallory {url}/log-in"), "a form from another site: refused"),
                (&format!("curl -H 'X-User: root' {url}/"), "a forged header: removed"),
                (
                    &format!("curl -H 'X_User: root' {url}/"),
                    "a spelling that CGI and WSGI apps take for X-User: removed, too",
                ),
            ],
        )?;
        section(
            "Inspect the table and a request, and end alice's session",
            &[
                (&self.command("session list --claims", None), ""),
                (&self.command(&format!("explain --path /admin --cookie '{cookie}'"), None), ""),
                (&self.command("session revoke", Some(session)), ""),
            ],
        )?;
        writeln!(
            out,
            "A session expires 60 s after its last reissue, and the page shows the time left. A request at least 10 s \
             after the last reissue, such as one by an open page, reissues the session.\n{BOLD}Ctrl-C{BOLD:#} ends the demo and \
             leaves nothing behind. Live:\n"
        )?;
        out.flush()
    }

    /// Returns the command that ends `session`.
    pub(super) fn revoke_command(&self, session: Ref) -> String {
        self.command("session revoke", Some(session))
    }

    fn command(&self, command: &str, session: Option<Ref>) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sessiongate"));
        let session = session.map(|session| format!(" {session}")).unwrap_or_default();
        format!("{} {command}{session} --config {}", quoted(&program), quoted(&self.file))
    }
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/x-1/gateway.toml")), "/tmp/x-1/gateway.toml");
        assert_eq!(quoted(Path::new("/My Files/x")), "'/My Files/x'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}
