//! How a new configuration differs from the one in force, by name; and what of it has to wait for a restart.
//!
//! Every key is named here once: the patterns below list the fields, so that a new one does not compile before it has
//! been decided what a reload makes of it.

use std::fmt;

use super::{Config, Limits, ListenerConfig, RouteConfig, ServerConfig, Timeouts};

/// More names than this of one kind are not spelled out.
const NAMED: usize = 10;

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys of `[server]` that are in force.
    pub server: Vec<&'static str>,
    /// `[[listeners]]`, by address.
    pub listeners: SectionChange,
    /// `[sessions.NAME]`
    pub realms: SectionChange,
    /// `[upstreams.NAME]`
    pub upstreams: SectionChange,
    /// `[[routes]]`, by host and path.
    pub routes: SectionChange,
    /// Keys that differ, and are in force only after a restart.
    pub restart: Vec<&'static str>,
}

/// What becomes of the parts of one kind. It shows as `+new ~changed -gone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionChange {
    /// Those that were not there before.
    pub added: Vec<String>,
    /// Those that are not what they were.
    pub changed: Vec<String>,
    /// Those that are there no longer.
    pub removed: Vec<String>,
}

impl Difference {
    /// What `wanted` comes to in a process that runs `current`: all of it but for what waits for a restart.
    pub fn apply(current: &Config, wanted: &Config) -> (Config, Self) {
        // What the file said shows in what it comes to.
        let Config { server, admin, listeners, store, realms, upstreams, routes, source: _ } = wanted;
        let mut difference = Self {
            listeners: SectionChange::between(&current.listeners, listeners, address, PartialEq::eq),
            realms: SectionChange::between(
                &current.realms,
                realms,
                |realm| realm.name.clone(),
                PartialEq::eq,
            ),
            upstreams: SectionChange::between(
                &current.upstreams,
                upstreams,
                |it| it.name.clone(),
                PartialEq::eq,
            ),
            routes: SectionChange::between(
                &current.routes,
                routes,
                |route| route.name.clone(),
                |before, after| same_route(current, before, wanted, after),
            ),
            ..Self::default()
        };
        let mut config = wanted.clone();
        if current.store != *store {
            difference.restart.push("store");
            config.store = current.store.clone();
        }
        if current.admin != *admin {
            difference.restart.push("admin");
            config.admin = current.admin.clone();
        }
        config.server = difference.of_server(&current.server, server);
        (config, difference)
    }

    fn of_server(&mut self, current: &ServerConfig, wanted: &ServerConfig) -> ServerConfig {
        let ServerConfig {
            workers,
            log,
            access_log,
            traces,
            max_header_bytes,
            odd_headers,
            timeouts,
            limits,
            watch,
            drain_delay,
            drain,
        } = wanted;
        let Timeouts { header, idle, body, body_rate, send } = timeouts;
        // How many connections there may be is counted out at the start.
        let counted = Limits {
            connections: current.limits.connections,
            connections_per_address: current.limits.connections_per_address,
            ..*limits
        };
        let restart = [
            ("server.workers", *workers != current.workers),
            ("server.log", *log != current.log),
            ("server.limits.connections", limits.connections != counted.connections),
            (
                "server.limits.connections_per_address",
                limits.connections_per_address != counted.connections_per_address,
            ),
        ];
        let live = [
            ("access_log", *access_log != current.access_log),
            ("traces", *traces != current.traces),
            ("max_header_bytes", *max_header_bytes != current.max_header_bytes),
            ("odd_headers", *odd_headers != current.odd_headers),
            ("header_timeout", *header != current.timeouts.header),
            ("idle_timeout", *idle != current.timeouts.idle),
            ("body_timeout", *body != current.timeouts.body),
            ("body_rate", *body_rate != current.timeouts.body_rate),
            ("send_timeout", *send != current.timeouts.send),
            ("limits", counted != current.limits),
            ("watch", *watch != current.watch),
            ("drain_delay", *drain_delay != current.drain_delay),
            ("drain", *drain != current.drain),
        ];
        let names = |keys: &[(&'static str, bool)]| -> Vec<_> {
            keys.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
        };
        self.restart.extend(names(&restart));
        self.server.extend(names(&live));
        ServerConfig { workers: current.workers, log: current.log, limits: counted, ..wanted.clone() }
    }

    /// Whether everything is as it was, and nothing waits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SectionChange {
    /// Compares parts of the same name; of several with one name, the first with the first, and so on.
    fn between<T>(
        before: &[T],
        after: &[T],
        name: impl Fn(&T) -> String,
        same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let mut left: Vec<_> = before.iter().map(|part| (name(part), part)).collect();
        let mut change = Self::default();
        for part in after {
            let name = name(part);
            match left.iter().position(|(other, _)| *other == name).map(|index| left.remove(index)) {
                Some((_, other)) if same(other, part) => {}
                Some(_) => change.changed.push(name),
                None => change.added.push(name),
            }
        }
        change.removed = left.into_iter().map(|(name, _)| name).collect();
        change
    }

    /// What is to be said of it, if anything.
    pub fn summary(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.to_string())
    }
}

impl fmt::Display for SectionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = [('+', &self.added), ('~', &self.changed), ('-', &self.removed)];
        let mut parts =
            signed.into_iter().flat_map(|(sign, names)| names.iter().map(move |name| (sign, name)));
        for (index, (sign, name)) in parts.by_ref().take(NAMED).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{sign}{name}")?;
        }
        match parts.count() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn address(listener: &ListenerConfig) -> String {
    listener.address.to_string()
}

/// Whether two routes are the same. They name realms and upstreams by where these stand in their own configuration.
fn same_route(current: &Config, before: &RouteConfig, wanted: &Config, after: &RouteConfig) -> bool {
    let realm = |config: &Config, route: &RouteConfig| {
        route.realm.and_then(|index| config.realms.get(index)).map(|realm| realm.name.clone())
    };
    let upstream = |config: &Config, route: &RouteConfig| {
        route
            .destination
            .upstream()
            .and_then(|index| config.upstreams.get(index))
            .map(|upstream| upstream.name.clone())
    };
    let destination = before.destination.clone().moved(after.destination.upstream());
    let moved = RouteConfig { realm: after.realm, destination, ..before.clone() };
    moved == *after
        && realm(current, before) == realm(wanted, after)
        && upstream(current, before) == upstream(wanted, after)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{environment::System, parse};
    use super::*;

    const BASE: &str = "[server]\nworkers = 2\n[[listeners]]\naddress = \"127.0.0.1:1\"\n[store.embedded]\n\
        [sessions.main]\nformat = \"native\"\ntable = \"sessions\"\n[upstreams.app]\nservers = [\"http://127.0.0.1:2\"]\n\
        [[routes]]\npath = \"/\"\nsession = \"main\"\naccess = \"required\"\nupstream = \"app\"\n";

    fn config(text: &str) -> Config {
        let (config, report) = parse(text, Path::new("test.toml"), &System);
        config.unwrap_or_else(|| panic!("{report}"))
    }

    #[test]
    fn what_is_the_same_is_no_difference() {
        let (config, difference) = Difference::apply(&config(BASE), &config(&format!("# a comment\n{BASE}")));
        assert!(difference.is_empty(), "{difference:?}");
        assert_eq!(config, self::config(BASE));
    }

    #[test]
    fn parts_are_named_and_what_must_wait_waits() {
        let text = BASE
            .replace("workers = 2", "workers = 3\ndrain = \"1s\"")
            .replace("127.0.0.1:1", "127.0.0.1:3")
            .replace("[store.embedded]", "[store.embedded]\npath = \"x.db\"")
            .replace("127.0.0.1:2", "127.0.0.1:4");
        let text = format!("{text}[[routes]]\npath = \"/new\"\naccess = \"public\"\nupstream = \"app\"\n");
        let (config, difference) = Difference::apply(&config(BASE), &config(&text));

        assert_eq!(difference.server, ["drain"]);
        assert_eq!(difference.restart, ["store", "server.workers"]);
        assert_eq!(difference.listeners.to_string(), "+127.0.0.1:3 -127.0.0.1:1");
        assert_eq!(difference.upstreams.to_string(), "~app");
        assert_eq!(difference.routes.to_string(), "+/new");
        assert_eq!(difference.realms.summary(), None);
        assert_eq!((config.server.workers, config.server.drain.as_secs()), (2, 1));
        assert_eq!(config.store, self::config(BASE).store);
    }

    #[test]
    fn a_route_is_the_same_where_only_its_neighbours_moved() {
        let more = format!("{BASE}[upstreams.aaa]\nservers = [\"http://127.0.0.1:5\"]\n");
        let (_, difference) = Difference::apply(&config(BASE), &config(&more));
        assert_eq!(difference.upstreams.to_string(), "+aaa");
        assert_eq!(difference.routes.summary(), None);
    }

    #[test]
    fn a_long_list_is_cut() {
        let change =
            SectionChange { added: (0..12).map(|n| n.to_string()).collect(), ..SectionChange::default() };
        assert_eq!(change.to_string(), "+0 +1 +2 +3 +4 +5 +6 +7 +8 +9 and 2 more");
    }
}
