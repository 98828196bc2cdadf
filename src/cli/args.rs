//! What can be typed. Only the shape is checked here; what it means needs the configuration and is up to the commands.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::claims::{ClaimPath, Requirement};

/// DynamoDB-backed sessions in front of web apps that know nothing about them
#[derive(Debug, Parser)]
#[command(name = "sessiongate", version, max_term_width = 100)]
#[command(after_help = "\
Without a command, `serve` is run. New here? Try `sessiongate demo`.

Exit codes: 0 done, 1 refused or not found, 2 usage or configuration, 3 internal")]
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
    /// Report every problem of the configuration
    Check(Check),
    /// Show what this is: a store, a legacy app, the gateway in front of it, and things to try
    Demo(Demo),
    /// The tables that sessions live in
    #[command(subcommand)]
    Table(TableCommand),
    /// The sessions themselves
    #[command(subcommand)]
    Session(SessionCommand),
    /// Tell what the gateway would do with a request, and why, without touching anything
    Explain(Explain),
    /// Print the completions of a shell
    Completions(Completions),
}

/// Which configuration a command uses; before or after the command's name.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file; without it, the one that the environment variable SESSIONGATE_CONFIG names, or gateway.toml
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// The path of the file. An empty variable counts as one that is not set.
    pub(crate) fn path(&self) -> PathBuf {
        let named = || std::env::var_os("SESSIONGATE_CONFIG").filter(|name| !name.is_empty());
        let file = self.config.clone().or_else(|| named().map(PathBuf::from));
        file.unwrap_or_else(|| "gateway.toml".into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Ask the store for its tables and connect to the upstreams, too
    #[arg(long)]
    pub(crate) connect: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The gateway's port; another one is taken if it is in use, and 0 takes any
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Create the tables that are missing, with DynamoDB's TTL on
    Create(Tables),
    /// Show the state of the tables
    Show(TablesShown),
    /// Print the least IAM policy that the gateway needs, as JSON
    Policy(Tables),
}

#[derive(Debug, Args)]
pub(crate) struct Tables {
    /// Only the table of this realm
    #[arg(long)]
    pub(crate) realm: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TablesShown {
    #[command(flatten)]
    pub(crate) tables: Tables,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Make a session and print its cookie, once
    Create(Create),
    /// Show a session, its claims included
    Show(Show),
    /// List sessions as the table's scan finds them
    List(List),
    /// End a session: delete its row
    Revoke(Revoke),
    /// Delete the rows of all sessions that are over
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RealmChoice {
    /// Which kind of session; may be left out if the configuration has only one
    #[arg(long)]
    pub(crate) realm: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// A claim; the value is JSON if it reads as JSON (`7`, `true`, `["admin"]`), else a string
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub(crate) claims: Vec<(String, serde_json::Value)>,
    /// Claims as a JSON object; `-` reads stdin. A --claim of the same name wins
    #[arg(long, value_name = "FILE")]
    pub(crate) claims_json: Option<PathBuf>,
    /// Print one JSON object instead of the cookie alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which session is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The session's ref: 16 hex digits, as logs and `session list` show it
    #[arg(value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// Its cookie: the value, or a whole `Cookie` header; `-` reads stdin
    #[arg(long, value_name = "COOKIE", allow_hyphen_values = true)]
    pub(crate) cookie: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) which: Which,
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
    /// Only sessions whose claim is, or as a list holds, this value: JSON if it reads as JSON, else a string; all of
    /// them must hold
    #[arg(long = "claim", value_name = "PATH=VALUE", value_parser = sought)]
    pub(crate) sought: Vec<Requirement>,
    /// Only sessions that are alive
    #[arg(long, conflicts_with = "expired")]
    pub(crate) live: bool,
    /// Only sessions that are over, whose rows are there still
    #[arg(long)]
    pub(crate) expired: bool,
    /// Show the claims, too
    #[arg(long)]
    pub(crate) claims: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) realm: RealmChoice,
    /// Only count what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also delete rows without any data, as a log-out leaves them behind, once their deadline has passed
    #[arg(long)]
    pub(crate) empty: bool,
    /// How many read capacity units a second the scan may use; without it, as many as it can. What deletes write is
    /// not limited, and a table that throttles is waited for
    #[arg(long, value_name = "N")]
    pub(crate) max_rcu: Option<NonZeroU32>,
    /// In how many parts the table is read, side by side
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
    /// The request's path, with its query
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// The request's host
    #[arg(long, default_value = "localhost")]
    pub(crate) host: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    pub(crate) method: http::Method,
    /// A header of the request, for example `Accept: text/html`; as often as you like
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    match serde_json::from_str(value) {
        Ok(json) => Ok((name.to_owned(), json)),
        Err(_) if value.trim_start().starts_with(['[', '{', '"']) => Err(misspelt(name, value)),
        Err(_) => Ok((name.to_owned(), value.into())),
    }
}

/// What to say of a value that begins as JSON does and is not: often, a shell has taken its quotes.
fn misspelt(name: &str, value: &str) -> String {
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
            format!("this looks like a JSON list and is not JSON: write {list}, or {as_text} for a text")
        }
        None => format!(
            "this looks like JSON and is not: names and texts of JSON have double quotes, and the shell leaves them alone \
             in single ones; write {as_text} for a text"
        ),
    }
}

fn sought(text: &str) -> Result<Requirement, String> {
    let (path, value) = claim(text)?;
    let claim = ClaimPath::parse(&path).ok_or("this is not the path of a claim")?;
    Ok(Requirement::equals(claim, value))
}

fn segments(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse().ok().filter(|count: &NonZeroU16| count.get() <= 256).ok_or("expected a number from 1 to 256")
}

fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.parse().map_err(|_| "this is not a header's name")?;
    Ok((name, value.trim().parse().map_err(|_| "this is not a header's value")?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn claims_are_json_where_they_read_as_json() {
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
    }

    #[test]
    fn value_that_looks_like_json_and_is_not_is_refused_with_the_right_spelling() {
        for (text, expected) in [
            ("roles=[admin]", r#"--claim 'roles=["admin"]'"#),
            ("roles=[admin, 7, 'x y']", r#"--claim 'roles=["admin",7,"x y"]'"#),
            ("roles=[admin]", r#"--claim 'roles="[admin]"' for a text"#),
            ("roles=[admin", r#"--claim 'roles="[admin"' for a text"#),
            ("a={b: 1}", r#"--claim 'a="{b: 1}"' for a text"#),
            ("a=\"b", r#"--claim 'a="\"b"' for a text"#),
            ("a=[it's]", r#"--claim 'a=["it'\''s"]'"#),
        ] {
            let message = claim(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(claim("name=O'Hara [x]").unwrap().1, json!("O'Hara [x]"));
    }
}
