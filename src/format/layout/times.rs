//! A row's times: how they are read, and which attributes a touch sets.

use std::time::Duration;

use crate::config::RealmConfig;
use crate::config::layout::{LayoutConfig, TimeRule, TimeUnit};
use crate::format::{Renewal, RowFault, SessionRecord, WriteCondition, iso8601};
use crate::item::{Attribute, Item, Number};
use crate::time::Timestamp;

/// aws-sessionstore-dynamodb's last activity: Unix seconds as a string.
const UPDATED: &str = "updated_at";
/// aws-sessionstore-dynamodb's lock, held during a request.
const LOCKED: &str = "locked_at";
/// dynamodb-session-web's last activity, in ISO 8601.
const ACCESSED: &str = "accessed";
/// dynamodb-session-web's idle timeout, in seconds.
const IDLE: &str = "idle_timeout";
/// dynamodb-session-web's absolute timeout, in seconds.
const ABSOLUTE: &str = "absolute_timeout";
/// The absolute timeout of new sessions if the realm has no `lifetime`: dynamodb-session-web's default.
const WEB_ABSOLUTE: Duration = Duration::from_hours(12);

/// Reads and writes the times of a layout's rows.
#[derive(Debug)]
pub(super) struct RowTimes {
    pub(super) timeout: Duration,
    lifetime: Option<Duration>,
    expires: Option<String>,
    created: Option<String>,
    unit: TimeUnit,
    rule: TimeRule,
}

/// The times of a row.
pub(super) struct DecodedTimes {
    pub(super) issued: Timestamp,
    pub(super) created: Option<Timestamp>,
    pub(super) expires: Timestamp,
    pub(super) renewal: Renewal,
}

impl RowTimes {
    pub(super) fn new(realm: &RealmConfig, layout: &LayoutConfig) -> Self {
        Self {
            timeout: realm.timeout,
            lifetime: realm.lifetime,
            expires: layout.expires.clone(),
            created: layout.created.clone(),
            unit: layout.unit,
            rule: layout.rule,
        }
    }

    pub(super) fn ttl_attribute(&self) -> Option<&str> {
        // Unless `max_stale` is set, Rack writes the current time as the deadline, and TTL would delete every session.
        let usable = self.unit == TimeUnit::Seconds && self.rule != TimeRule::Rack;
        self.expires.as_deref().filter(|_| usable)
    }

    pub(super) fn records_creation(&self) -> bool {
        self.created.is_some()
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.expires.as_deref().into_iter().chain(self.created.as_deref())
    }

    /// Returns the attribute that every touch changes, and so is conditional on.
    pub(super) fn guard(&self) -> Option<&str> {
        match self.rule {
            TimeRule::Deadline | TimeRule::Required | TimeRule::Fixed => self.expires.as_deref(),
            TimeRule::Rack => Some(UPDATED),
            TimeRule::Web => Some(ACCESSED),
        }
    }

    /// Reads a row's times; `max_age` is the session's own timeout, if its payload has one.
    pub(super) fn read(&self, item: &Item, max_age: Option<Duration>) -> Result<DecodedTimes, RowFault> {
        let created = self.created.as_deref();
        let created = created.map(|name| read(item, name, self.created_unit())).transpose()?.flatten();
        match self.rule {
            TimeRule::Rack => {
                let issued = required(item, UPDATED, Unit::Text)?;
                let expires = issued.plus(self.timeout);
                Ok(DecodedTimes { issued, created, expires, renewal: Renewal::Realm })
            }
            TimeRule::Web => {
                let issued = required(item, ACCESSED, Unit::Iso8601)?;
                let expires = self.expires.as_deref().unwrap_or_default();
                let timeout = seconds(item, IDLE)?.unwrap_or(self.timeout);
                let absolute = seconds(item, ABSOLUTE)?;
                let end = created.zip(absolute).map_or(Timestamp::NEVER, |(created, age)| created.plus(age));
                let end = Timestamp::from_secs(end.as_secs());
                let expires = required(item, expires, self.unit.into())?;
                Ok(DecodedTimes { issued, created, expires, renewal: Renewal::Own { timeout, end } })
            }
            TimeRule::Deadline | TimeRule::Required | TimeRule::Fixed => {
                self.read_deadline(item, created, max_age)
            }
        }
    }

    fn read_deadline(
        &self,
        item: &Item,
        created: Option<Timestamp>,
        max_age: Option<Duration>,
    ) -> Result<DecodedTimes, RowFault> {
        let timeout = max_age.unwrap_or(self.timeout);
        let expires = match self.expires.as_deref() {
            None => None,
            Some(name) if self.rule == TimeRule::Required => Some(required(item, name, self.unit.into())?),
            Some(name) => read(item, name, self.unit.into())?,
        };
        let Some(expires) = expires else {
            let expires = created.map_or(Timestamp::NEVER, |created| created.plus(self.timeout));
            let issued = created.unwrap_or(Timestamp::from_secs(0));
            return Ok(DecodedTimes { issued, created, expires, renewal: Renewal::Never });
        };
        let renewal = match (self.rule, max_age) {
            (TimeRule::Fixed, _) => Renewal::Never,
            (_, Some(timeout)) => Renewal::Own { timeout, end: Timestamp::NEVER },
            (_, None) => Renewal::Realm,
        };
        Ok(DecodedTimes { issued: expires.minus(timeout), created, expires, renewal })
    }

    /// Returns the attributes that a touch sets.
    pub(super) fn touched(&self, now: Timestamp, expires: Timestamp) -> Vec<(String, Attribute)> {
        // A session that does not expire has no deadline to write.
        let deadline = self.expires.iter().filter(|_| expires != Timestamp::NEVER);
        let deadline = deadline.map(|name| (name.clone(), write(expires, self.unit.into())));
        let activity = match self.rule {
            TimeRule::Deadline | TimeRule::Required | TimeRule::Fixed => None,
            TimeRule::Rack => Some((UPDATED.to_owned(), write(truncate_to_seconds(now), Unit::Text))),
            TimeRule::Web => Some((ACCESSED.to_owned(), write(truncate_to_seconds(now), Unit::Iso8601))),
        };
        deadline.chain(activity).collect()
    }

    /// Returns the condition that no request has locked the row, if rows have locks.
    pub(super) fn unlocked(&self) -> Option<WriteCondition> {
        (self.rule == TimeRule::Rack).then(|| WriteCondition::Lacks(LOCKED.to_owned()))
    }

    /// Returns the attributes for the times of a new row.
    pub(super) fn new_row(&self, record: &SessionRecord) -> Item {
        let created = record.created.unwrap_or(record.issued);
        let mut expires = record.expires;
        let mut item = Item::new();
        if self.rule == TimeRule::Web {
            let absolute = self.lifetime.unwrap_or(WEB_ABSOLUTE);
            expires = expires.min(created.plus(absolute));
            item.insert(IDLE.to_owned(), Attribute::number(self.timeout.as_secs()));
            item.insert(ABSOLUTE.to_owned(), Attribute::number(absolute.as_secs()));
        }
        item.extend(self.created.iter().map(|name| (name.clone(), write(created, self.created_unit()))));
        item.extend(self.touched(record.issued, expires));
        item
    }

    fn created_unit(&self) -> Unit {
        match self.rule {
            TimeRule::Deadline | TimeRule::Required | TimeRule::Fixed => self.unit.into(),
            TimeRule::Rack => Unit::Text,
            TimeRule::Web => Unit::Iso8601,
        }
    }
}

/// The representation of a time in an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Millis,
    Iso8601,
    /// Seconds, as Ruby's `Time.now.to_f.to_s` writes them.
    Text,
}

impl From<TimeUnit> for Unit {
    fn from(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Seconds => Self::Seconds,
            TimeUnit::Millis => Self::Millis,
            TimeUnit::Iso8601 => Self::Iso8601,
        }
    }
}

fn required(item: &Item, name: &str, unit: Unit) -> Result<Timestamp, RowFault> {
    read(item, name, unit)?.ok_or_else(|| RowFault::Missing(name.to_owned()))
}

/// Reads an optional time.
fn read(item: &Item, name: &str, unit: Unit) -> Result<Option<Timestamp>, RowFault> {
    let Some(attribute) = item.get(name) else { return Ok(None) };
    let time = match unit {
        Unit::Seconds => attribute.as_number().and_then(Number::as_unix_seconds),
        Unit::Millis => attribute.as_number().and_then(millis),
        Unit::Iso8601 => attribute.as_str().and_then(iso8601::parse),
        Unit::Text => attribute.as_str().and_then(|text| Number::from_text(text).as_unix_seconds()),
    };
    time.map(Some).ok_or_else(|| RowFault::Type(name.to_owned()))
}

fn millis(number: &Number) -> Option<Timestamp> {
    let millis: f64 = number.as_str().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "range checked")]
    (millis.abs() < 1e17).then(|| Timestamp::from_millis(millis as i64))
}

/// Reads an optional duration in seconds.
fn seconds(item: &Item, name: &str) -> Result<Option<Duration>, RowFault> {
    let Some(attribute) = item.get(name) else { return Ok(None) };
    let secs = attribute.as_number().and_then(Number::as_u64).filter(|secs| *secs > 0);
    secs.map(|secs| Some(Duration::from_secs(secs))).ok_or_else(|| RowFault::Type(name.to_owned()))
}

fn write(time: Timestamp, unit: Unit) -> Attribute {
    match unit {
        Unit::Seconds => Attribute::Number(Number::from_seconds(time)),
        Unit::Millis => Attribute::number(time.as_millis()),
        // Formatting fails only after the year 9999, where the gateway sets no deadline.
        Unit::Iso8601 => Attribute::String(iso8601::write(time.as_secs(), micros(time)).unwrap_or_default()),
        Unit::Text => Attribute::String(format!("{}.{:03}", time.as_secs(), micros(time) / 1000)),
    }
}

fn micros(time: Timestamp) -> u32 {
    u32::try_from(time.as_millis().rem_euclid(1000)).unwrap_or(0) * 1000
}

fn truncate_to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_secs(time.as_secs())
}
