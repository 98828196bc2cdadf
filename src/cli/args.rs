//! The arguments of the command line. Only their syntax is checked here; the commands check them against the
//! configuration.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::claims::{ClaimPath, Requirement};
use crate::format::parse_claims;

/// DynamoDB-backed sessions in front of web apps that know nothing about them
#[derive(Debug, Parser)]
#[command(name = "sessiongate", version, max_term_width = 100)]
#[command(after_help = "\
Without a command, `serve` is run. New here? Try `sessiongate demo`.

Exit codes: 0 success, 1 refused or not found, 2 wrong usage or configuration, 3 internal error")]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway
    Serve,
    /// Report every error in the configuration
    Check(Check),
    /// Run a demo: a store, an app, the gateway in front of it, and commands to try
    Demo(Demo),
    /// Create and show the session tables
    #[command(subcommand)]
    Table(TableCommand),
    /// Create, show, list and end sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Show what the gateway would do with a request, and why, without changing anything
    Explain(Explain),
    /// Print the completion script for a shell
    Completions(Completions),
}

/// The configuration file of a command. The option may come before or after the command's name.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file; default: the environment variable SESSIONGATE_CONFIG, or gateway.toml
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// Returns the path of the file. An empty environment variable counts as unset.
    pub(crate) fn path(&self) -> PathBuf {
        let named = || std::env::var_os("SESSIONGATE_CONFIG").filter(|name| !name.is_empty());
        let file = self.config.clone().or_else(|| named().map(PathBuf::from));
        file.unwrap_or_else(|| "gateway.toml".into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Also check the tables and connect to the upstreams
    #[arg(long)]
    pub(crate) connect: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The gateway's port; if it is in use, or 0, a free one is chosen
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Create the missing tables, and enable DynamoDB's TTL if the format has an attribute for it
    Create(Tables),
    /// Show the state of the tables
    Show(ShowTables),
    /// Print the minimal IAM policy as JSON: one statement for the gateway, one for the commands `table` and `session`
    Policy(Tables),
}

#[derive(Debug, Args)]
pub(crate) struct Tables {
    /// Only the table of this realm
    #[arg(long)]
    pub(crate) realm: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowTables {
    #[command(flatten)]
    pub(crate) tables: Tables,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Create a session and print its cookie, which cannot be printed again
    Create(Create),
    /// Show a session with its claims
    Show(Show),
    /// List sessions, in the order of a table scan
    List(List),
    /// End a session by deleting its row
    Revoke(Revoke),
    /// Delete the rows of all expired sessions
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RealmChoice {
    /// The realm of the session; optional if the configuration has only one
    #[arg(long)]
    pub(crate) realm: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// A claim; the value is parsed as JSON (`7`, `true`, `["admin"]`) if it is valid JSON, else taken as a string
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub(crate) claims: Vec<(String, serde_json::Value)>,
    /// File with the claims as a JSON object; `-` reads stdin. A --claim of the same name takes precedence
    #[arg(long, value_name = "FILE")]
    pub(crate) claims_json: Option<PathBuf>,
    /// Print one JSON object instead of the cookie alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// The session that a command operates on, selected by its ref or by its cookie.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SessionSelector {
    /// The session's ref: 16 hex digits, as in logs and in `session list`
    #[arg(value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// The session's cookie: its value, or a whole `Cookie` header; `-` reads stdin
    #[arg(long, value_name = "COOKIE", allow_hyphen_values = true)]
    pub(crate) cookie: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) selector: SessionSelector,
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// Only sessions with this claim: the claim is the value, or a list that contains it. The value is JSON if it is valid
    /// JSON, else a string. If repeated, all must match
    #[arg(long = "claim", value_name = "PATH=VALUE", value_parser = claim_filter)]
    pub(crate) claim_filters: Vec<Requirement>,
    /// Only live sessions
    #[arg(long, conflicts_with = "expired")]
    pub(crate) live: bool,
    /// Only expired sessions whose rows still exist
    #[arg(long)]
    pub(crate) expired: bool,
    /// Also show the claims
    #[arg(long)]
    pub(crate) claims: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) selector: SessionSelector,
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// Only count the rows that would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also delete expired rows without data, which some frameworks leave after a log-out
    #[arg(long)]
    pub(crate) empty: bool,
    /// Limit on the read capacity units that the scan uses per second; unlimited by default. Deletes are not limited. If
    /// DynamoDB throttles, the command waits
    #[arg(long, value_name = "N")]
    pub(crate) max_rcu: Option<NonZeroU32>,
    /// Number of segments of the table that are scanned in parallel
    #[arg(long, value_name = "N", default_value = "4", value_parser = segments)]
    pub(crate) segments: NonZeroU16,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The session cookie's value, or a whole `Cookie` header; `-` reads stdin
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cookie: Option<String>,
    /// The request's path and query
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// The request's host
    #[arg(long, default_value = "localhost")]
    pub(crate) host: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    pub(crate) method: http::Method,
    /// A header of the request, for example `Accept: text/html`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell for which to print the script
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    match serde_json::from_str::<serde_json::Value>(value) {
        Ok(_) => {
            // The gateway's parser, which does not round large integers.
            let claims = parse_claims(format!("{{\"claim\":{value}}}").as_bytes());
            let value = claims.and_then(|mut claims| claims.shift_remove("claim"));
            value.map(|value| (name.to_owned(), value)).ok_or_else(|| {
                "the value is nested too deeply, has too many values, or contains an integer beyond 64 bits; put \
                 such an integer in double quotes"
                    .to_owned()
            })
        }
        Err(_) if value.trim_start().starts_with(['[', '{', '"']) => Err(invalid_json(name, value)),
        Err(_) => Ok((name.to_owned(), value.into())),
    }
}

/// Returns the error message for a value that begins like JSON but is invalid, often because the shell has removed its
/// quotes.
fn invalid_json(name: &str, value: &str) -> String {
    let argument = |value: &serde_json::Value| {
        let text = format!("{name}={value}");
        format!("--claim '{}'", text.replace('\'', r"'\''"))
    };
    let as_text = argument(&value.into());
    let inside = value.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside.filter(|inside| !inside.contains(['[', ']', '{', '}'])) {
        Some(inside) => {
            let elements = inside.split(',').map(str::trim).filter(|element| !element.is_empty());
            let elements = elements.map(|element| {
                let text = || serde_json::Value::from(element.trim_matches(['"', '\'']));
                serde_json::from_str(element).unwrap_or_else(|_| text())
            });
            let list = argument(&serde_json::Value::Array(elements.collect()));
            format!(
                "this looks like a JSON list but is not valid JSON: write {list}, or {as_text} for a string"
            )
        }
        None => format!(
            "this looks like JSON but is not valid: put names and strings in double quotes, and the whole argument in single \
             quotes to protect it from the shell; write {as_text} for a string"
        ),
    }
}

fn claim_filter(text: &str) -> Result<Requirement, String> {
    let (path, value) = claim(text)?;
    let claim = ClaimPath::parse(&path).ok_or("invalid claim path")?;
    Ok(Requirement::equals(claim, value))
}

fn segments(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse().ok().filter(|count: &NonZeroU16| count.get() <= 256).ok_or("expected a number from 1 to 256")
}

fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.parse().map_err(|_| "invalid header name")?;
    Ok((name, value.trim().parse().map_err(|_| "invalid header value")?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn clap_accepts_the_definition() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn claims_are_json_if_valid_and_else_strings() {
        for (text, expected) in [
            ("user=alice", json!("alice")),
            ("n=7", json!(7)),
            (r#"roles=["admin"]"#, json!(["admin"])),
            ("q=a=b", json!("a=b")),
            ("text=\"7\"", json!("7")),
            ("empty=", json!("")),
        ] {
            assert_eq!(claim(text).unwrap().1, expected, "{text}");
        }
        assert!(claim("user").is_err());
        assert!(claim("=x").is_err());
        assert_eq!(claim("id=18446744073709551615").unwrap().1, json!(u64::MAX));
        assert_eq!(claim("id=\"18446744073709551616\"").unwrap().1, json!("18446744073709551616"));
        for text in ["id=18446744073709551616", "id=-9223372036854775809", "ids=[1, 18446744073709551616]"] {
            let message = claim(text).unwrap_err();
            assert!(message.contains("an integer beyond 64 bits"), "{text}: {message}");
        }
    }

    #[test]
    fn invalid_json_is_refused_with_a_suggestion() {
        for (text, expected) in [
            ("roles=[admin]", r#"--claim 'roles=["admin"]'"#),
            ("roles=[admin, 7, 'x y']", r#"--claim 'roles=["admin",7,"x y"]'"#),
            ("roles=[admin]", r#"--claim 'roles="[admin]"' for a string"#),
            ("roles=[admin", r#"--claim 'roles="[admin"' for a string"#),
            ("a={b: 1}", r#"--claim 'a="{b: 1}"' for a string"#),
            ("a=\"b", r#"--claim 'a="\"b"' for a string"#),
            ("a=[it's]", r#"--claim 'a=["it'\''s"]'"#),
        ] {
            let message = claim(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(claim("name=O'Hara [x]").unwrap().1, json!("O'Hara [x]"));
    }
}
