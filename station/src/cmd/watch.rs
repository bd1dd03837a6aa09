//! `station watch`: parts and events of cameras as they come.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use proto::message::{FromCamera, Start, ToCamera};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde_json::json;

use super::{meant, versioned};
use crate::client::{Client, Heard, Place};
use crate::home::Home;
use crate::scene::{News, Scene};
use crate::screen::{Palette, draw};
use crate::words;

/// A camera that cannot be reached is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The screen is drawn so often.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// News that wait to be shown; beyond, cameras wait.
const NEWS: usize = 1_024;

/// Watch cameras: rates, the last NG part with its anomaly map, events.
///
/// On a terminal the view fills the screen; into a pipe, with --lines or with --json there is a line for each NG part, fault and
/// event. Only what happens from now on is shown.
#[derive(Args)]
pub(crate) struct Watch {
    /// The cameras; all that are paired unless given.
    cameras: Vec<Place>,
    /// OK parts get a line too.
    #[arg(long)]
    all: bool,
    /// Lines, also on a terminal.
    #[arg(long)]
    lines: bool,
}

impl Watch {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let home = Home::open()?;
        let places = meant(&home, &self.cameras)?;
        let (sender, news) = sync_channel(NEWS);
        for (index, place) in places.iter().cloned().enumerate() {
            let sender = sender.clone();
            std::thread::Builder::new()
                .name(format!("watch {place}"))
                .spawn(move || keep_following(&place, index, &sender))
                .context("cannot start a thread")?;
        }
        drop(sender);
        let names: Vec<String> = places.iter().map(ToString::to_string).collect();
        if json || self.lines || !std::io::stdout().is_terminal() {
            return self.print(&news, &names, json);
        }
        // It may have come halfway.
        let mut terminal = ratatui::try_init()
            .inspect_err(|_| ratatui::restore())
            .context("cannot use the terminal; try --lines")?;
        let shown = show(
            &mut terminal,
            Scene::new(names.into_iter(), self.all),
            &news,
        );
        ratatui::restore();
        shown
    }

    fn print(&self, news: &Receiver<(usize, News)>, names: &[String], json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let mut scene = Scene::new(names.iter().cloned(), self.all);
        for (index, news) in news {
            if json && let News::Record(record) = &news {
                if words::line(record, self.all).is_some() {
                    let line = versioned(json!({ "camera": names[index], "record": record }));
                    if is_over(writeln!(out, "{}", serde_json::to_string(&line)?))? {
                        return Ok(());
                    }
                }
                continue;
            }
            // Links are of this program, everything else is of the camera.
            let is_link = !matches!(news, News::Record(_));
            scene.tell(index, news, Instant::now());
            if let Some((_, _, line)) = scene.lines.pop_back() {
                if is_link {
                    eprintln!("{}: {line}", names[index]);
                } else if is_over(writeln!(out, "{}: {line}", names[index]))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whoever read the lines has read enough (`station watch | head`): that is no error.
fn is_over(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        written => written.map(|()| false).context("cannot write"),
    }
}

/// Until the receiver is gone.
fn keep_following(place: &Place, index: usize, sender: &SyncSender<(usize, News)>) {
    loop {
        let reason = match follow(place, index, sender) {
            Ok(()) => return,
            Err(error) => format!("{error:#}"),
        };
        if sender.send((index, News::Lost { reason })).is_err() {
            return;
        }
        std::thread::sleep(AGAIN_AFTER);
    }
}

fn follow(place: &Place, index: usize, sender: &SyncSender<(usize, News)>) -> Result<()> {
    let home = Home::open()?;
    let (mut client, hello) = Client::greet(&home, place, Start::Now)?;
    let mut news = Some(News::Connected { model: hello.model });
    loop {
        if let Some(told) = news.take() {
            // A screen that is held up (Ctrl-S) must not break the link: the camera hears of us meanwhile.
            let mut told = (index, told);
            loop {
                match sender.try_send(told) {
                    Ok(()) => break,
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                    Err(TrySendError::Full(back)) => told = back,
                }
                std::thread::sleep(DRAW_EVERY);
                client.keep_alive()?;
            }
        }
        let Some(Heard::Message(message)) = client.next()? else {
            continue;
        };
        match *message {
            FromCamera::Record { sequence, record } => {
                news = Some(News::Record(Box::new(record)));
                client.send(&ToCamera::Acknowledge { sequence })?;
            }
            FromCamera::Goodbye { reason } => anyhow::bail!("{reason}"),
            _ => {}
        }
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut scene: Scene,
    news: &Receiver<(usize, News)>,
) -> Result<()> {
    let palette = Palette::of_terminal();
    loop {
        let now = Instant::now();
        for (index, news) in news.try_iter().take(NEWS) {
            scene.tell(index, news, now);
        }
        scene.look();
        terminal
            .draw(|frame| draw(frame, &scene, palette, now))
            .context("cannot draw")?;
        while event::poll(DRAW_EVERY.saturating_sub(now.elapsed())).context("cannot read keys")? {
            let Event::Key(key) = event::read().context("cannot read keys")? else {
                // Another size: draw at once.
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
