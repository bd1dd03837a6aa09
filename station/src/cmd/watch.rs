//! `station watch`: shows parts and events of cameras as they happen.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use proto::message::{FromCamera, Start, ToCamera};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde_json::json;

use super::{cameras_or_all, versioned};
use crate::client::{Client, Endpoint, Received};
use crate::key_store::KeyStore;
use crate::scene::{Scene, Update};
use crate::screen::{Palette, draw};
use crate::sequence::{Seen, Sequence};
use crate::text;

/// Pause before another try to reach a camera.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Time between two drawings of the screen.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Updates that may wait to be shown. When there are more, cameras must wait.
const MAX_WAITING: usize = 1_024;

/// Watch cameras live: rates, the last NG part with its anomaly map, events.
///
/// On a terminal, the view fills the screen. In a pipe, with --lines or with --json, it prints a
/// line for each NG part, fault and event. It shows what happens from now on.
#[derive(Args)]
pub(crate) struct Watch {
    /// The cameras [default: all paired cameras].
    cameras: Vec<Endpoint>,
    /// Print lines for OK parts too.
    #[arg(long)]
    all: bool,
    /// Print lines on a terminal too, instead of the full-screen view.
    #[arg(long)]
    lines: bool,
}

impl Watch {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let key_store = KeyStore::open()?;
        let endpoints = cameras_or_all(&key_store, &self.cameras)?;
        let (sender, updates) = sync_channel(MAX_WAITING);
        for (index, endpoint) in endpoints.iter().cloned().enumerate() {
            let sender = sender.clone();
            std::thread::Builder::new()
                .name(format!("watch {endpoint}"))
                .spawn(move || keep_following(&endpoint, index, &sender))
                .context("cannot start a thread")?;
        }
        drop(sender);
        let names: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        if json || self.lines || !std::io::stdout().is_terminal() {
            return self.print(&updates, &names, json);
        }
        // A failed set-up may have changed some settings of the terminal: restore them.
        let mut terminal = ratatui::try_init()
            .inspect_err(|_| ratatui::restore())
            .context("cannot use the terminal; try --lines")?;
        let shown = show(
            &mut terminal,
            Scene::new(names.into_iter(), self.all),
            &updates,
        );
        ratatui::restore();
        shown
    }

    /// Prints updates as lines of text or JSON.
    fn print(
        &self,
        updates: &Receiver<(usize, Update)>,
        names: &[String],
        json: bool,
    ) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let mut scene = Scene::new(names.iter().cloned(), self.all);
        for (index, update) in updates {
            if json && let Update::Record(record) = &update {
                if text::record_line(record, self.all).is_some() {
                    let line = versioned(json!({ "camera": names[index], "record": record }));
                    if is_closed(writeln!(out, "{}", serde_json::to_string(&line)?))? {
                        return Ok(());
                    }
                }
                continue;
            }
            // Records of the camera are results; the state of the link is not.
            let is_link = !matches!(update, Update::Record(_));
            scene.apply(index, update, Instant::now());
            if let Some((_, _, line)) = scene.lines.pop_back() {
                if is_link {
                    note!("{}: {line}", names[index]);
                } else if is_closed(writeln!(out, "{}: {line}", names[index]))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whether the reader of the pipe has ended (`station watch | head`), which is not an error.
fn is_closed(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        written => written.map(|()| false).context("cannot write"),
    }
}

/// Follows a camera, and connects again after failures, until the receiver is dropped.
fn keep_following(endpoint: &Endpoint, index: usize, sender: &SyncSender<(usize, Update)>) {
    loop {
        let reason = match follow(endpoint, index, sender) {
            Ok(()) => return,
            Err(error) => format!("{error:#}"),
        };
        if sender.send((index, Update::Lost { reason })).is_err() {
            return;
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

/// Follows a camera until its link fails, or returns when the receiver is dropped.
fn follow(endpoint: &Endpoint, index: usize, sender: &SyncSender<(usize, Update)>) -> Result<()> {
    let key_store = KeyStore::open()?;
    let (mut client, hello) = Client::greet(&key_store, endpoint, Start::Now)?;
    let mut sequence = Sequence::new(hello.next);
    let mut update = Some(Update::Connected { model: hello.model });
    loop {
        if let Some(update) = update.take() {
            // The link is kept alive while the queue is full, as when output is paused by Ctrl-S.
            let mut waiting = (index, update);
            loop {
                match sender.try_send(waiting) {
                    Ok(()) => break,
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                    Err(TrySendError::Full(returned)) => waiting = returned,
                }
                std::thread::sleep(DRAW_EVERY);
                client.keep_alive()?;
            }
        }
        let Some(Received::Message(message)) = client.receive()? else {
            continue;
        };
        match *message {
            FromCamera::Record {
                sequence: number,
                record,
            } => {
                match sequence.record(number) {
                    Seen::Missing(first) if client.line.is_some() => {
                        client.hello(Start::At(first))?;
                        continue;
                    }
                    Seen::Double => {}
                    Seen::Next | Seen::Missing(_) => {
                        update = Some(Update::Record(Box::new(record)));
                    }
                }
                client.send(&ToCamera::Acknowledge { sequence: number })?;
            }
            FromCamera::Displaced { to, .. } => sequence.displaced(to),
            FromCamera::Goodbye { reason } => anyhow::bail!("{reason}"),
            _ => {}
        }
    }
}

/// Shows updates on the full screen until the user quits.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut scene: Scene,
    updates: &Receiver<(usize, Update)>,
) -> Result<()> {
    let palette = Palette::of_terminal();
    loop {
        let now = Instant::now();
        for (index, update) in updates.try_iter().take(MAX_WAITING) {
            scene.apply(index, update, now);
        }
        scene.unpack_shown_pictures();
        terminal
            .draw(|frame| draw(frame, &scene, palette, now))
            .context("cannot draw")?;
        while event::poll(DRAW_EVERY.saturating_sub(now.elapsed())).context("cannot read keys")? {
            let Event::Key(key) = event::read().context("cannot read keys")? else {
                // The terminal was resized: draw at once.
                break;
            };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => scene.select(1),
                KeyCode::Up | KeyCode::Char('k') => scene.select(-1),
                _ => continue,
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::report::{Body, Event, Record};

    #[test]
    fn json_lines_have_a_version() {
        let record = Record {
            unix_ms: 5,
            boot: 1,
            body: Body::Event(Event::Stopping),
        };
        let line = serde_json::to_value(versioned(json!({ "camera": "a", "record": record })));
        let line = line.unwrap_or_default();
        assert_eq!((&line["schema"], &line["camera"]), (&1.into(), &"a".into()));
        assert_eq!(line["record"]["body"]["Event"], "Stopping");
    }
}
