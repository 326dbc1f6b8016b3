//! `turnlock daemon`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::SignedDuration;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::Context;
use crate::backup::Backups;
use crate::config::Config;
use crate::daemon::{self, Done, Event, Master, Orders};
use crate::drift::Proven;
use crate::engine::Engine;
use crate::failure::{Failure, exit};
use crate::fleet::Outcome;
use crate::observe::server::{self, Watch};
use crate::rotators::Rotators;

#[derive(Debug, Args)]
#[command(after_help = "\
Records say in turnlock:schedule when they are due: `every 30d`, or cron with a
time zone. SIGTERM ends it once what has begun is done, SIGHUP lets it read its
configuration again. It speaks to systemd (Type=notify-reload, WatchdogSec=60).

Examples:
  turnlock edit Orders --set 'turnlock:schedule=every 30d in Sat,Sun 22:00-06:00 Europe/Berlin'
  turnlock due --all
  turnlock daemon")]
pub(super) struct Daemon {
    /// Answer /metrics and /health at this address, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Keep figures in this file, which everybody may read
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// How late a record may be before /health fails, such as 12h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    overdue_limit: SignedDuration,
}

pub(super) async fn run(context: &Context, daemon: Daemon) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let watch = daemon.watch(context, &engine).await?;
    let first_orders = orders(&context.config, engine)?;
    let reload = Arc::new(Notify::new());
    let mut hang_up =
        signal(SignalKind::hangup()).map_err(|error| Failure::new("signals cannot be watched").caused_by(&error))?;
    let asked = Arc::clone(&reload);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            asked.notify_one();
        }
    });
    let mut master = Systemd { context, watch, stands_by: false };
    daemon::run(first_orders, &reload, &mut master).await?;
    Ok(exit::DONE)
}

impl Daemon {
    /// Begins to tell whoever watches.
    async fn watch(&self, context: &Context, engine: &Engine) -> Result<Arc<Watch>, Failure> {
        let watch = Watch::new(Arc::clone(&engine.vault), self.overdue_limit);
        if let Some(address) = self.metrics_listen {
            let listener = server::listen(address).await?;
            if let Ok(address) = listener.local_addr() {
                context.report.note(&format!("http://{address}/metrics and http://{address}/health are answered"));
            }
            tokio::spawn(server::serve(listener, Arc::clone(&watch)));
        }
        if let Some(file) = self.metrics_file.clone() {
            let report = context.report.clone();
            tokio::spawn(server::keep(file, Arc::clone(&watch), move |failure| report.failure(failure)));
        }
        Ok(watch)
    }
}

fn orders(config: &Config, engine: Arc<Engine>) -> Result<Orders, Failure> {
    let verify = config.daemon.verify.as_deref().map(str::parse).transpose().map_err(|error| {
        Failure::usage("`verify` in the section [daemon] of the configuration is no schedule").caused_by(&error)
    })?;
    Ok(Orders {
        engine,
        rules: super::fleet::rules(&config.fleet),
        verify,
        reconcile: config.daemon.reconcile,
        backups: Backups::new(&config.state_directory, &config.vault),
    })
}

/// Tells people what happens, and systemd that it does.
struct Systemd<'a> {
    context: &'a Context,
    watch: Arc<Watch>,
    stands_by: bool,
}

impl Master for Systemd<'_> {
    async fn read_orders(&self, old: &Orders) -> Result<Orders, Failure> {
        notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Status(""))]);
        let config = Config::load(self.context.overrides.clone())?;
        let rotators = Rotators::new(&config);
        let (catalogue, faults) = rotators.catalogue().await;
        for fault in faults {
            self.context.report.warn(&fault.message);
        }
        let old = &old.engine;
        let engine = Engine {
            vault: Arc::clone(&old.vault),
            rotators,
            catalogue,
            hooks: config.hooks.clone(),
            owner: old.owner.clone(),
            stop: old.stop.clone(),
            wait: old.wait,
            progress: Arc::clone(&old.progress),
        };
        orders(&config, Arc::new(engine))
    }

    fn hear(&mut self, event: Event<'_>) {
        let report = &self.context.report;
        self.watch.beat();
        match event {
            Event::StandsBy(holder) => {
                if !self.stands_by {
                    let who = format!("process {} on {}", holder.owner.process.pid, holder.owner.machine);
                    report.note(&format!("{who} schedules this vault already: standing by"));
                    notify(&[NotifyState::Ready, NotifyState::Status("standing by")]);
                }
                self.stands_by = true;
                notify(&[NotifyState::Watchdog]);
            }
            Event::Active => {
                self.stands_by = false;
                report.note("rotating what falls due");
                notify(&[NotifyState::Ready]);
            }
            Event::Ended(ended) => match &ended.outcome {
                Outcome::Done(Done::Rotated(rotated) | Done::Proven(Proven::Reconciled(rotated))) => {
                    report.rotated(rotated);
                }
                Outcome::Done(Done::Settled) => report.note(&format!("settled {}", ended.job.title)),
                Outcome::Done(Done::Proven(_)) => {}
                Outcome::Failed(failure) => report.failed(&ended.job, failure, "failed"),
                Outcome::NotTried(why) => report.failed(&ended.job, &why.failure(&ended.job), "not_tried"),
            },
            Event::Beats { ahead, at_work, next } => {
                let next =
                    next.map_or_else(String::new, |next| format!(", next at {}", next.strftime("%Y-%m-%d %H:%M:%SZ")));
                let status = format!("{at_work} at work, {ahead} ahead{next}");
                notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            }
            Event::NoBackup(why) => report.note(&why),
            Event::Trouble(failure) => report.failure(failure),
            Event::Reloaded => {
                report.note("goes by the new configuration");
                notify(&[NotifyState::Ready]);
            }
            Event::Stops => notify(&[NotifyState::Stopping]),
        }
    }
}

/// Without systemd nobody listens, and that is fine.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
