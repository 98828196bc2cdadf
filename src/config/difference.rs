//! The difference between the running configuration and a new one: which sections change, and which changes need a
//! restart.
//!
//! The patterns below list every field, so that a new setting does not compile before this module handles it.

use std::fmt;

use super::{Config, Limits, ListenerConfig, RouteConfig, ServerConfig, Timeouts};

/// Maximum number of names that are listed for one kind of section.
const MAX_NAMES: usize = 10;

/// The changes of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Changed keys of `[server]` that a reload applies.
    pub server: Vec<&'static str>,
    /// `[[listeners]]`, by address.
    pub listeners: SectionChange,
    /// `[sessions.NAME]`
    pub realms: SectionChange,
    /// `[upstreams.NAME]`
    pub upstreams: SectionChange,
    /// `[[routes]]`, by host and path.
    pub routes: SectionChange,
    /// Changed keys that only a restart applies.
    pub restart: Vec<&'static str>,
}

/// Changes of the sections of one kind. It is displayed as `+added ~changed -removed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionChange {
    /// The names of new sections.
    pub added: Vec<String>,
    /// The names of sections whose settings have changed.
    pub changed: Vec<String>,
    /// The names of removed sections.
    pub removed: Vec<String>,
}

impl Difference {
    /// Returns the configuration that replaces `current` on a reload of `wanted`, and the changes. Settings that need a
    /// restart keep their current values.
    pub fn apply(current: &Config, wanted: &Config) -> (Config, Self) {
        // `source` is only for display: the file as masked JSON. Every setting is in one of the other fields.
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
                |upstream| upstream.name.clone(),
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
        config.server = difference.apply_server(&current.server, server);
        (config, difference)
    }

    fn apply_server(&mut self, current: &ServerConfig, wanted: &ServerConfig) -> ServerConfig {
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
        // The connection limits are set up at the start.
        let applied = Limits {
            connections: current.limits.connections,
            connections_per_address: current.limits.connections_per_address,
            ..*limits
        };
        let restart = [
            ("server.workers", *workers != current.workers),
            ("server.log", *log != current.log),
            ("server.limits.connections", limits.connections != applied.connections),
            (
                "server.limits.connections_per_address",
                limits.connections_per_address != applied.connections_per_address,
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
            ("limits", applied != current.limits),
            ("watch", *watch != current.watch),
            ("drain_delay", *drain_delay != current.drain_delay),
            ("drain", *drain != current.drain),
        ];
        let names = |keys: &[(&'static str, bool)]| -> Vec<_> {
            keys.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
        };
        self.restart.extend(names(&restart));
        self.server.extend(names(&live));
        ServerConfig { workers: current.workers, log: current.log, limits: applied, ..wanted.clone() }
    }

    /// Returns whether the two configurations are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SectionChange {
    /// Compares the sections of the same name. If several have the same name, they are compared in order.
    fn between<T>(
        before: &[T],
        after: &[T],
        name: impl Fn(&T) -> String,
        same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let mut left: Vec<_> = before.iter().map(|section| (name(section), section)).collect();
        let mut change = Self::default();
        for section in after {
            let name = name(section);
            match left.iter().position(|(other, _)| *other == name).map(|index| left.remove(index)) {
                Some((_, other)) if same(other, section) => {}
                Some(_) => change.changed.push(name),
                None => change.added.push(name),
            }
        }
        change.removed = left.into_iter().map(|(name, _)| name).collect();
        change
    }

    /// Returns the text for a log line, or `None` if nothing changes.
    pub fn summary(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.to_string())
    }
}

impl fmt::Display for SectionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = [('+', &self.added), ('~', &self.changed), ('-', &self.removed)];
        let mut changes =
            signed.into_iter().flat_map(|(sign, names)| names.iter().map(move |name| (sign, name)));
        for (index, (sign, name)) in changes.by_ref().take(MAX_NAMES).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{sign}{name}")?;
        }
        match changes.count() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn address(listener: &ListenerConfig) -> String {
    listener.address.to_string()
}

/// Returns whether two routes are the same. Their realms and upstreams are compared by name, since an index is only valid
/// in its own configuration.
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
    let destination = before.destination.clone().with_upstream(after.destination.upstream());
    let reindexed = RouteConfig { realm: after.realm, destination, ..before.clone() };
    reindexed == *after
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
    fn equal_configurations_have_no_difference() {
        let (config, difference) = Difference::apply(&config(BASE), &config(&format!("# a comment\n{BASE}")));
        assert!(difference.is_empty(), "{difference:?}");
        assert_eq!(config, self::config(BASE));
    }

    #[test]
    fn changes_are_listed_and_restart_settings_keep_their_values() {
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
    fn route_is_unchanged_if_only_indices_moved() {
        let more = format!("{BASE}[upstreams.aaa]\nservers = [\"http://127.0.0.1:5\"]\n");
        let (_, difference) = Difference::apply(&config(BASE), &config(&more));
        assert_eq!(difference.upstreams.to_string(), "+aaa");
        assert_eq!(difference.routes.summary(), None);
    }

    #[test]
    fn long_list_is_truncated() {
        let change =
            SectionChange { added: (0..12).map(|n| n.to_string()).collect(), ..SectionChange::default() };
        assert_eq!(change.to_string(), "+0 +1 +2 +3 +4 +5 +6 +7 +8 +9 and 2 more");
    }
}
