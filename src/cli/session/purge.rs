//! `sessiongate session purge`: shows how the work of [`crate::session::purge`] goes on, and what came of it. At a
//! terminal that is a bar; elsewhere it is a line every few seconds.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::args;
use crate::cli::failure::{CommandResult, Failure};
use crate::cli::output::{self, GOOD};
use crate::cli::serve::Stop;
use crate::cli::site::{self, Reach, Site};
use crate::session::judge::Policy;
use crate::session::purge::{Empty, Mode, Purge, PurgeEnd, PurgeTotals, Rules};
use crate::time::Clock;

/// How often a line tells how far it is, where there is no terminal.
const EVERY: Duration = Duration::from_secs(3);

pub(in crate::cli) fn run(args: &args::PurgeArgs, file: &args::ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    crate::cli::block_on(async {
        let mut signals = Stop::listen()?;
        let site = Site::open(&config, args.realm.realm.as_deref(), Reach::Existing).await?;
        site.table.check_schema().await?;
        let rows = site.table.describe().await?.map_or(0, |state| state.item_count);
        let mode = if args.dry_run { Mode::Count } else { Mode::Delete };
        let purge = Purge {
            table: &site.table,
            rules: Rules {
                format: site.format.as_ref(),
                policy: Policy::new(&site.config),
                empty: if args.empty { Empty::Expire } else { Empty::Leave },
            },
            mode,
            segments: args.segments,
            max_rcu: args.max_rcu,
        };
        let started = Clock.mono();
        let view = View::new(site.table.name(), rows, mode, started)?;
        let stop = CancellationToken::new();
        let progress = |tally: &PurgeTotals| view.show(tally);
        let work = purge.run(&stop, &progress);
        let listening = async {
            signals.heard().await;
            stop.cancel();
            // The work ends by itself, and soon; a second signal is not worth losing the summary for.
            std::future::pending::<()>().await;
        };
        let (tally, ended) = tokio::select! {
            done = work => done,
            () = listening => return Err(Failure::internal("the signals ended")),
        };
        view.close();
        let stopped = !matches!(ended, Ok(PurgeEnd::Complete));
        report(args, &site, &tally, stopped, Clock.mono().saturating_duration_since(started))?;
        match ended? {
            PurgeEnd::Complete => Ok(()),
            PurgeEnd::Stopped => Err(Failure::refused("stopped before the end of the table")
                .hint("what was deleted stays deleted; run it again for the rest")),
        }
    })
}

/// What a person sees of the work.
struct View {
    bar: Option<ProgressBar>,
    table: String,
    rows: u64,
    mode: Mode,
    shown: Cell<Instant>,
}

impl View {
    /// `rows` is what DynamoDB says that the table holds: hours old, and good enough for a bar.
    fn new(table: &str, rows: u64, mode: Mode, now: Instant) -> io::Result<Self> {
        let bar = io::stderr().is_terminal().then(|| bar(rows));
        if bar.is_none() {
            let work = match mode {
                Mode::Delete => "deleting",
                Mode::Count => "counting",
            };
            output::say(format_args!(
                "{work} the sessions of table `{table}` that are over; DynamoDB counts about {rows} rows"
            ))?;
        }
        Ok(Self { bar, table: table.to_owned(), rows, mode, shown: Cell::new(now) })
    }

    fn show(&self, tally: &PurgeTotals) {
        let (settled, done) = (tally.settled(self.mode), done(self.mode, tally));
        if let Some(bar) = &self.bar {
            // A count that is out of date makes no bar that is over-full.
            bar.set_length(self.rows.max(tally.scanned));
            bar.set_message(done);
            bar.set_position(settled);
            return;
        }
        let now = Clock.mono();
        if now.saturating_duration_since(self.shown.get()) >= EVERY {
            self.shown.set(now);
            let line =
                format!("table `{}`: {settled} of about {} rows settled, {done}", self.table, self.rows);
            // Where stderr is gone, the work goes on.
            let _unseen = output::say(line);
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
    // A template that did not parse would be a bar of the default style, and a failed test.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn done(mode: Mode, tally: &PurgeTotals) -> String {
    match mode {
        Mode::Delete => format!("{} deleted", tally.deleted),
        Mode::Count => format!("{} to delete", tally.over),
    }
}

fn report(
    args: &args::PurgeArgs,
    site: &Site,
    tally: &PurgeTotals,
    stopped: bool,
    took: Duration,
) -> io::Result<()> {
    if args.json {
        let summary = json!({
            "realm": site.config.name,
            "table": site.table.name(),
            "dry_run": args.dry_run,
            "complete": !stopped,
            "scanned": tally.scanned,
            "live": tally.live,
            "over": tally.over,
            "deleted": tally.deleted,
            "changed": tally.changed,
            "gone": tally.gone,
            "left": tally.left,
            "read_units": tally.read_units,
            "pauses": tally.pauses,
            "seconds": took.as_secs_f64(),
        });
        writeln!(output::stdout(), "{summary}")?;
    }
    let mut stderr = output::stderr();
    let took = humantime::format_duration(Duration::from_secs(took.as_secs().max(1)));
    let done = done(if args.dry_run { Mode::Count } else { Mode::Delete }, tally);
    writeln!(
        stderr,
        "{GOOD}{done}{GOOD:#}: {} rows of table `{}` read in {took}, {} live, {} over; {:.1} read units",
        tally.scanned,
        site.table.name(),
        tally.live,
        tally.over,
        tally.read_units
    )?;
    if tally.changed + tally.gone > 0 {
        let (changed, gone) = (tally.changed, tally.gone);
        writeln!(stderr, "{changed} stayed, being used or changed meanwhile; {gone} were deleted by others")?;
    }
    for (reason, rows) in &tally.left {
        let noun = if *rows == 1 { "row" } else { "rows" };
        writeln!(stderr, "{rows} {noun} left alone: {reason}")?;
    }
    if tally.pauses > 0 {
        writeln!(stderr, "the store asked for patience {} times", tally.pauses)?;
    }
    Ok(())
}
