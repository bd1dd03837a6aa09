//! Draws a [`Scene`] in a terminal: a table of cameras; below it, the last NG part of the selected
//! camera beside the last events.

use std::time::{Duration, Instant};

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState, Widget};

use crate::scene::{LastNg, Scene, Watched};

/// The colours of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Palette {
    /// Any colour.
    Full,
    /// The 6×6×6 cube of 256-colour terminals.
    Cube,
}

impl Palette {
    /// The palette of this terminal, by the convention of `COLORTERM`.
    pub(crate) fn of_terminal() -> Self {
        match std::env::var("COLORTERM").as_deref() {
            Ok("truecolor" | "24bit") => Self::Full,
            _ => Self::Cube,
        }
    }

    fn colour(self, Rgb([red, green, blue]): Rgb<u8>) -> Color {
        // The cube's levels are 0, 95, 135, 175, 215, 255.
        let level = |value: u8| match value {
            0..48 => 0,
            48..115 => 1,
            _ => (value - 35) / 40,
        };
        match self {
            Self::Full => Color::Rgb(red, green, blue),
            Self::Cube => Color::Indexed(16 + 36 * level(red) + 6 * level(green) + level(blue)),
        }
    }
}

/// Draws the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, scene: &Scene, palette: Palette, now: Instant) {
    let rows = scene.cameras.len() as u16 + 3;
    let area = frame.area();
    let [cameras, below, keys] = Layout::vertical([
        Constraint::Length(rows.min(area.height / 2)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    let [picture, lines] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(below);
    draw_cameras(frame, cameras, scene, now);
    draw_last_ng(frame, picture, scene, palette, now);
    draw_lines(frame, lines, scene, now);
    let help = " ↑ ↓ select a camera   q quit";
    frame.render_widget(Paragraph::new(help).style(Modifier::DIM), keys);
}

fn draw_cameras(frame: &mut Frame<'_>, area: Rect, scene: &Scene, now: Instant) {
    let header = [
        "CAMERA", "PARTS/S", "OK", "NG", "FAULT", "NG %", "MS", "MODEL",
    ];
    let rows = scene.cameras.iter().map(|camera| row(camera, now));
    let widths = [
        Constraint::Max(24),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Min(10),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Modifier::BOLD))
        .row_highlight_style(Modifier::BOLD)
        .highlight_symbol("▸ ")
        .block(Block::bordered().title(" cameras, since this view was opened "));
    let mut state = TableState::default().with_selected(scene.selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn row(camera: &Watched, now: Instant) -> Row<'_> {
    let [ok, ng, fault] = camera.counts;
    let ng_fraction = camera.ng_fraction();
    let state = match &camera.link_error {
        Some(reason) => Cell::from(reason.as_str()).style(Color::Yellow),
        None => Cell::from(camera.model.as_str()),
    };
    let marked = |count: u64, colour| {
        let style = if count > 0 {
            Style::from(colour)
        } else {
            Style::default()
        };
        Cell::from(count.to_string()).style(style)
    };
    Row::new([
        Cell::from(camera.name.as_str()),
        Cell::from(format!("{:.1}", camera.rate(now))),
        Cell::from(ok.to_string()),
        marked(ng, Color::Red),
        marked(fault, Color::Magenta),
        Cell::from(
            ng_fraction.map_or_else(String::new, |fraction| format!("{:.2}", fraction * 100.0)),
        ),
        Cell::from(format!("{:.1}", f64::from(camera.latency_us) / 1e3)),
        state,
    ])
}

fn draw_last_ng(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette, now: Instant) {
    let Some(camera) = scene.cameras.get(scene.selected) else {
        return;
    };
    let block = Block::bordered().title(format!(" last NG of {} ", camera.name));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let Some(ng) = &camera.last_ng else {
        frame.render_widget(Paragraph::new("none yet").style(Modifier::DIM), inside);
        return;
    };
    let [head, pictures] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inside);
    let head_line = format!("{}, {} ago", ng.line, age(now, ng.at));
    frame.render_widget(Paragraph::new(head_line), head);
    draw_pictures(frame.buffer_mut(), pictures, ng, palette);
}

fn draw_pictures(buffer: &mut Buffer, area: Rect, ng: &LastNg, palette: Palette) {
    let pictures: Vec<&RgbImage> = [&ng.frame, &ng.map].into_iter().flatten().collect();
    if pictures.is_empty() {
        let text = "its report has no pictures: see report.heat_map in the camera's configuration";
        Paragraph::new(text)
            .style(Modifier::DIM)
            .render(area, buffer);
        return;
    }
    let columns = vec![Constraint::Fill(1); pictures.len()];
    let areas = Layout::horizontal(columns).spacing(1).split(area);
    for (picture, area) in pictures.into_iter().zip(areas.iter()) {
        blocks(picture, *area, palette, buffer);
    }
}

/// Draws a picture in coarse pixels, two in each cell, one above the other.
fn blocks(picture: &RgbImage, area: Rect, palette: Palette, buffer: &mut Buffer) {
    let (columns, rows) = (u32::from(area.width), u32::from(area.height) * 2);
    let (width, height) = picture.dimensions();
    if columns == 0 || rows == 0 || width == 0 || height == 0 {
        return;
    }
    // As large as fits, with the picture's aspect ratio.
    let by_width = (columns, (columns * height).div_ceil(width).max(1));
    let by_height = ((rows * width).div_ceil(height).max(1), rows);
    let (columns, rows) = if by_width.1 <= rows {
        by_width
    } else {
        by_height
    };
    let small = resize(picture, columns, rows, FilterType::Triangle);
    for y in (0..rows).step_by(2) {
        for x in 0..columns {
            let position = (area.x + x as u16, area.y + (y / 2) as u16);
            let Some(cell) = buffer.cell_mut(position) else {
                continue;
            };
            let upper = palette.colour(*small.get_pixel(x, y));
            cell.set_symbol("▀").set_fg(upper);
            if let Some(lower) = small.get_pixel_checked(x, y + 1) {
                cell.set_bg(palette.colour(*lower));
            }
        }
    }
}

fn draw_lines(frame: &mut Frame<'_>, area: Rect, scene: &Scene, now: Instant) {
    let block = Block::bordered().title(" NG parts, faults and events, newest first ");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let newest = scene.lines.iter().rev().take(usize::from(inside.height));
    let lines = newest.map(|(at, camera, text)| {
        let name = scene.cameras.get(*camera).map_or("", |camera| &camera.name);
        Line::from(vec![
            Span::styled(format!("{:>6} ", age(now, *at)), Modifier::DIM),
            Span::styled(format!("{name} "), Modifier::BOLD),
            Span::raw(text.as_str()),
        ])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inside);
}

/// The time since a moment, in words.
fn age(now: Instant, at: Instant) -> String {
    let passed: Duration = now.saturating_duration_since(at);
    match passed.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use proto::report::Outcome;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::scene::Update;
    use crate::scene::tests::part;

    fn screen(scene: &Scene, width: u16, height: u16) -> (Buffer, String) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let now = Instant::now();
        terminal
            .draw(|frame| draw(frame, scene, Palette::Full, now))
            .unwrap();
        let buffer = terminal.backend().buffer().clone();
        let text = buffer.content().iter().map(|cell| cell.symbol()).collect();
        (buffer, text)
    }

    #[test]
    fn the_screen_shows_cameras_the_last_ng_part_with_its_map_and_events() {
        let names = ["left", "right"].map(str::to_owned);
        let mut scene = Scene::new(names.into_iter(), false);
        let now = Instant::now();
        let model = "leather 2".to_owned();
        scene.apply(1, Update::Connected { model }, now);
        scene.apply(1, part(41, Outcome::Ok), now);
        scene.apply(1, part(42, Outcome::Ng), now);
        let (_, text) = screen(&scene, 100, 30);
        for words in [
            "left",
            "connecting",
            "right",
            "leather 2",
            "last NG of left",
            "none yet",
        ] {
            assert!(text.contains(words), "{words} is not on the screen");
        }
        assert!(!text.contains('▀'));
        scene.select(5);
        scene.unpack_shown_pictures();
        let (buffer, text) = screen(&scene, 100, 30);
        assert!(
            text.contains("part 42 NG 0.7500 > 0.5000, 1 region, 0 s ago"),
            "{text}"
        );
        // The map's lower right quarter is bright, the others are dark.
        let cells: Vec<_> = (0..buffer.area.height)
            .flat_map(|y| (0..buffer.area.width).map(move |x| (x, y)))
            .filter(|at| buffer.cell(*at).unwrap().symbol() == "▀")
            .collect();
        let light = |at: &(u16, u16)| match buffer.cell(*at).unwrap().fg {
            Color::Rgb(red, green, blue) => u32::from(red) + u32::from(green) + u32::from(blue),
            other => panic!("{other:?}"),
        };
        assert!(light(cells.first().unwrap()) < 30);
        assert!(light(cells.last().unwrap()) > 500);
    }

    #[test]
    fn any_number_of_cameras_can_be_drawn_at_any_size() {
        let mut scene = Scene::new((0..50).map(|index| format!("camera {index}")), false);
        scene.apply(0, part(1, Outcome::Ng), Instant::now());
        scene.unpack_shown_pictures();
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
            screen(&scene, width, height);
        }
        scene.select(isize::MAX);
        // The table scrolls to the selected camera.
        assert!(screen(&scene, 80, 24).1.contains("camera 49"));
        screen(&Scene::new(std::iter::empty(), false), 80, 24);
    }

    #[test]
    fn the_cube_has_the_nearest_colour() {
        let cube = |rgb| Palette::Cube.colour(Rgb(rgb));
        assert_eq!(cube([0, 0, 0]), Color::Indexed(16));
        assert_eq!(cube([255, 255, 255]), Color::Indexed(231));
        // 95, 135, 175 are the levels 1, 2 and 3.
        assert_eq!(cube([95, 135, 175]), Color::Indexed(16 + 36 + 12 + 3));
    }
}
