//! `sessiongate session purge`: runs [`crate::session::purge`] and shows its progress and result. On a terminal the
//! progress is a bar, elsewhere a line every few seconds.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::args;
use crate::cli::context::{self, IfMissing, RealmContext};
use crate::cli::failure::{CommandResult, Failure};
use crate::cli::output::{self, GOOD};
use crate::cli::serve::StopSignals;
use crate::session::judge::Policy;
use crate::session::purge::{EmptyRows, Purge, PurgeEnd, PurgeMode, PurgeRules, PurgeTotals};
use crate::time::Clock;

/// Interval between progress lines if stderr is not a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

pub(in crate::cli) fn run(args: &args::PurgeArgs, file: &args::ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    crate::cli::block_on(async {
        let mut signals = StopSignals::listen()?;
        let realm = RealmContext::open(&config, args.realm.realm.as_deref(), IfMissing::Fail).await?;
        realm.table.check_schema().await?;
        let rows = realm.table.describe().await?.map_or(0, |state| state.item_count);
        let mode = if args.dry_run { PurgeMode::Count } else { PurgeMode::Delete };
        let purge = Purge {
            table: &realm.table,
            rules: PurgeRules {
                format: realm.format.as_ref(),
                policy: Policy::new(&realm.config),
                empty: if args.empty { EmptyRows::Expire } else { EmptyRows::Keep },
            },
            mode,
            segments: args.segments,
            max_rcu: args.max_rcu,
        };
        let started = Clock.mono();
        let display = ProgressDisplay::new(realm.table.name(), rows, mode, started)?;
        let stop = CancellationToken::new();
        let progress = |totals: &PurgeTotals| display.update(totals);
        let purging = purge.run(&stop, &progress);
        let cancelling = async {
            signals.recv().await;
            stop.cancel();
            // The purge stops shortly. Further signals are ignored, so that the summary is printed.
            std::future::pending::<()>().await;
        };
        let (totals, ended) = tokio::select! {
            done = purging => done,
            () = cancelling => return Err(Failure::internal("the signals ended")),
        };
        display.close();
        let stopped = !matches!(ended, Ok(PurgeEnd::Complete));
        report(args, &realm, &totals, stopped, Clock.mono().saturating_duration_since(started))?;
        match ended? {
            PurgeEnd::Complete => Ok(()),
            PurgeEnd::Stopped => Err(Failure::refused("stopped before the end of the table")
                .hint("deleted rows stay deleted; run the command again for the rest")),
        }
    })
}

/// Shows the progress on stderr.
struct ProgressDisplay {
    /// The progress bar; `None` if stderr is not a terminal.
    bar: Option<ProgressBar>,
    table: String,
    rows: u64,
    mode: PurgeMode,
    last_line: Cell<Instant>,
}

impl ProgressDisplay {
    /// `rows` is DynamoDB's count of the rows in the table, which may be hours old.
    fn new(table: &str, rows: u64, mode: PurgeMode, now: Instant) -> io::Result<Self> {
        let bar = io::stderr().is_terminal().then(|| bar(rows));
        if bar.is_none() {
            let work = match mode {
                PurgeMode::Delete => "deleting",
                PurgeMode::Count => "counting",
            };
            output::print_status(format_args!(
                "{work} the expired sessions of table `{table}`; DynamoDB counts about {rows} rows"
            ))?;
        }
        Ok(Self { bar, table: table.to_owned(), rows, mode, last_line: Cell::new(now) })
    }

    fn update(&self, totals: &PurgeTotals) {
        let (processed, result) = (totals.settled(self.mode), result(self.mode, totals));
        if let Some(bar) = &self.bar {
            // DynamoDB's count may be too low.
            bar.set_length(self.rows.max(totals.scanned));
            bar.set_message(result);
            bar.set_position(processed);
            return;
        }
        let now = Clock.mono();
        if now.saturating_duration_since(self.last_line.get()) >= PROGRESS_INTERVAL {
            self.last_line.set(now);
            let line = format!(
                "table `{}`: {processed} of about {} rows processed, {result}",
                self.table, self.rows
            );
            // If stderr is closed, the purge goes on.
            let _ = output::print_status(line);
        }
    }

    fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(rows: u64) -> ProgressBar {
    let template = "{bar:30} {human_pos}/{human_len} rows, {per_sec}, {eta} left, {msg}";
    let bar = ProgressBar::with_draw_target(Some(rows), ProgressDrawTarget::stderr());
    // The template is valid; if it were not, the bar would have the default style.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn result(mode: PurgeMode, totals: &PurgeTotals) -> String {
    match mode {
        PurgeMode::Delete => format!("{} deleted", totals.deleted),
        PurgeMode::Count => format!("{} to delete", totals.expired),
    }
}

fn report(
    args: &args::PurgeArgs,
    realm: &RealmContext,
    totals: &PurgeTotals,
    stopped: bool,
    took: Duration,
) -> io::Result<()> {
    if args.json {
        let summary = json!({
            "realm": realm.config.name,
            "table": realm.table.name(),
            "dry_run": args.dry_run,
            "complete": !stopped,
            "scanned": totals.scanned,
            "live": totals.live,
            "expired": totals.expired,
            "deleted": totals.deleted,
            "changed": totals.changed,
            "gone": totals.deleted_by_others,
            "left": totals.kept,
            "read_units": totals.read_units,
            "pauses": totals.pauses,
            "seconds": took.as_secs_f64(),
        });
        writeln!(output::stdout(), "{}", output::json(&summary))?;
    }
    let mut stderr = output::stderr();
    let took = humantime::format_duration(Duration::from_secs(took.as_secs().max(1)));
    let result = result(if args.dry_run { PurgeMode::Count } else { PurgeMode::Delete }, totals);
    writeln!(
        stderr,
        "{GOOD}{result}{GOOD:#}: {} rows of table `{}` read in {took}, {} live, {} expired; {:.1} read units",
        totals.scanned,
        realm.table.name(),
        totals.live,
        totals.expired,
        totals.read_units
    )?;
    if totals.changed + totals.deleted_by_others > 0 {
        let (changed, gone) = (totals.changed, totals.deleted_by_others);
        writeln!(
            stderr,
            "kept because they were used or changed meanwhile: {changed}; deleted by others: {gone}"
        )?;
    }
    for (reason, rows) in &totals.kept {
        let noun = if *rows == 1 { "row" } else { "rows" };
        writeln!(stderr, "{rows} {noun} left alone: {reason}")?;
    }
    if totals.pauses > 0 {
        writeln!(stderr, "paused {} times because DynamoDB throttled or failed", totals.pauses)?;
    }
    Ok(())
}
