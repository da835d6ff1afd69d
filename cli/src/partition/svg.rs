//! A map as SVG.

use core::fmt::Write;

use folkmoot_trials::COLOURS;

use super::picture::{Cell, Moving, Picture, Row};

/// Columns of the map, so that each is wide enough to be seen.
pub(super) const COLUMNS: usize = 192;
const WIDTH: f64 = 1200.0;
/// Where the cells begin and end.
const LEFT: f64 = 220.0;
const RIGHT: f64 = 1090.0;
/// Of a row, and of the gap between zones.
const ROW: f64 = 20.0;
const GAP: f64 = 10.0;
const LINE: f64 = 16.0;
/// Moves that are listed.
const MOVES: usize = 12;

const OWNS: &str = COLOURS[0];
const LETS_GO: &str = COLOURS[4];
const READY: &str = COLOURS[5];
const ARROW: &str = COLOURS[1];
const GONE: &str = "#999";

/// The map as a document.
pub(super) fn draw(picture: &Picture) -> String {
    let mut svg = String::new();
    // To write to a string does not fail.
    let _ = draw_into(&mut svg, picture);
    svg
}

fn draw_into(svg: &mut String, picture: &Picture) -> core::fmt::Result {
    let tops = tops(picture);
    let top = |row: usize| tops.get(row).copied().unwrap_or_default();
    let below = tops.last().map_or(70.0, |last| last + ROW) + 30.0;
    let listed = picture.moves.len().min(MOVES + 1) as f64;
    let height = below + 30.0 + LINE * listed;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"24\" font-size=\"15\">{}</text>",
        escaped(&picture.title)
    )?;
    for (place, note) in picture.notes.iter().enumerate() {
        let y = 42.0 + LINE * place as f64;
        let note = escaped(note);
        writeln!(
            svg,
            "<text x=\"20\" y=\"{y}\" fill=\"{ARROW}\">{note}</text>"
        )?;
    }
    let mut zone = None;
    for (place, row) in picture.rows.iter().enumerate() {
        if zone != Some(&row.zone) {
            zone = Some(&row.zone);
            let (y, zone) = (top(place) + 14.0, escaped(&row.zone));
            writeln!(
                svg,
                "<text x=\"20\" y=\"{y}\" font-weight=\"bold\">{zone}</text>"
            )?;
        }
        draw_row(svg, row, top(place))?;
    }
    for (from, to, column) in picture.moves.iter().filter_map(|it| it.arrow) {
        let (x, width) = place(column, picture.columns.len());
        arrow(svg, x + width / 2.0, top(from) + 9.0, top(to) + 9.0)?;
    }
    axis(svg, picture, below - 16.0)?;
    legend(svg, picture, below + 12.0)?;
    let moves = picture.moves.iter().take(MOVES).map(Moving::line);
    let more = picture.moves.len().saturating_sub(MOVES);
    let more = (more > 0).then(|| format!("and {more} moves more"));
    for (place, line) in moves.chain(more).enumerate() {
        let y = below + 34.0 + LINE * place as f64;
        writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{y}\">{}</text>",
            escaped(&line)
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(())
}

/// The upper end of each row: those of one zone are together.
fn tops(picture: &Picture) -> Vec<f64> {
    let mut top = 50.0 + LINE * picture.notes.len() as f64;
    let mut tops = Vec::new();
    let mut zone = None;
    for row in &picture.rows {
        if zone.is_some_and(|zone| zone != &row.zone) {
            top += GAP;
        }
        zone = Some(&row.zone);
        tops.push(top);
        top += ROW;
    }
    tops
}

/// The left end and the width of a column.
fn place(column: usize, columns: usize) -> (f64, f64) {
    let width = (RIGHT - LEFT) / columns.max(1) as f64;
    (LEFT + width * column as f64, width)
}

fn draw_row(svg: &mut String, row: &Row, top: f64) -> core::fmt::Result {
    let colour = match row.state.as_str() {
        "alive" => "black",
        "gone" | "unknown" => GONE,
        _ => ARROW,
    };
    let base = top + 14.0;
    writeln!(
        svg,
        "<text x=\"70\" y=\"{base}\" fill=\"{colour}\">{}</text>\
         <text x=\"135\" y=\"{base}\" fill=\"{colour}\">{}</text>\
         <text x=\"{}\" y=\"{base}\">{}</text>\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"#f4f4f4\"/>",
        escaped(&row.member),
        escaped(&row.state),
        RIGHT + 10.0,
        match row.ready {
            0 => row.owns.to_string(),
            ready => format!("{} + {ready}", row.owns),
        },
        RIGHT - LEFT,
        ROW - 3.0
    )?;
    for (column, cell) in row.cells.iter().enumerate() {
        let (x, width) = place(column, row.cells.len());
        draw_cell(svg, *cell, x, top, width)?;
    }
    Ok(())
}

fn draw_cell(svg: &mut String, cell: Cell, x: f64, top: f64, width: f64) -> core::fmt::Result {
    let full = ROW - 3.0;
    // A gap between cells, where there is room for one.
    let width = if width > 4.0 { width - 1.0 } else { width };
    let (fill, height) = match cell {
        Cell::Nothing => return Ok(()),
        Cell::Owns => (OWNS, full),
        Cell::LetsGo => (LETS_GO, full),
        Cell::Ready => (READY, full / 2.0),
        Cell::CatchesUp => (READY, full / 4.0),
        Cell::Gone => (GONE, full / 4.0),
        Cell::Eighths(owned) => (OWNS, full * f64::from(owned) / 8.0),
    };
    let y = top + full - height;
    writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    )
}

fn arrow(svg: &mut String, x: f64, from: f64, to: f64) -> core::fmt::Result {
    let back = if to > from { -6.0 } else { 6.0 };
    writeln!(
        svg,
        "<path d=\"M{x:.1} {from:.1}V{to:.1}M{:.1} {:.1}L{x:.1} {to:.1}L{:.1} {:.1}\" \
         fill=\"none\" stroke=\"{ARROW}\" stroke-width=\"1.5\"/>",
        x - 3.0,
        to + back,
        x + 3.0,
        to + back
    )
}

fn axis(svg: &mut String, picture: &Picture, y: f64) -> core::fmt::Result {
    let (Some((first, _)), Some((_, last))) = (picture.columns.first(), picture.columns.last())
    else {
        return Ok(());
    };
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{y}\">partition {first}</text>\
         <text x=\"{RIGHT}\" y=\"{y}\" text-anchor=\"end\">{last}</text>\
         <text x=\"{}\" y=\"{y}\">owns + ready</text>",
        RIGHT + 10.0
    )
}

fn legend(svg: &mut String, picture: &Picture, y: f64) -> core::fmt::Result {
    let owns = match picture.is_exact() {
        true => "owns",
        false => "owns that much of a column",
    };
    let known = [
        (OWNS, owns, 12.0),
        (LETS_GO, "is to let go", 12.0),
        (READY, "ready", 6.0),
        (READY, "catches up", 3.0),
        (GONE, "is gone", 3.0),
        (ARROW, "moves", 2.0),
    ];
    let mut x = LEFT;
    for (fill, text, height) in known {
        let top = y - height;
        writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"{height}\" fill=\"{fill}\"/>\
             <text x=\"{}\" y=\"{y}\">{text}</text>",
            x + 17.0
        )?;
        x += 40.0 + 7.0 * text.len() as f64;
    }
    Ok(())
}

/// Text in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
