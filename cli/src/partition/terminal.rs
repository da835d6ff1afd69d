//! A map in the terminal.

use super::picture::{Cell, Picture, Row};

/// Columns of the map, so that a line fits a wide terminal.
pub(super) const COLUMNS: usize = 96;
/// Moves that are listed.
const MOVES: usize = 24;

/// The map in lines.
pub(super) fn draw(picture: &Picture) -> String {
    let mut lines = vec![picture.title.clone()];
    lines.extend(picture.notes.iter().map(|note| format!("  {note}")));
    if picture.rows.is_empty() {
        lines.push("  no member has joined the group".to_owned());
        return lines.join("\n");
    }
    let mut cells: Vec<[String; 6]> = vec![[
        "ZONE".to_owned(),
        "MEMBER".to_owned(),
        "STATE".to_owned(),
        "OWNS".to_owned(),
        "READY".to_owned(),
        heading(picture),
    ]];
    let mut zone = None;
    for row in &picture.rows {
        // A zone is said once.
        let said = (zone != Some(&row.zone)).then(|| row.zone.clone());
        zone = Some(&row.zone);
        cells.push([
            said.unwrap_or_default(),
            row.member.clone(),
            row.state.clone(),
            row.owns.to_string(),
            row.ready.to_string(),
            strip(row),
        ]);
    }
    lines.extend(aligned(&cells));
    lines.push(legend(picture));
    let moves = picture.moves.iter().take(MOVES);
    lines.extend(moves.map(|moving| format!("  {}", moving.line())));
    if picture.moves.len() > MOVES {
        lines.push(format!("  and {} moves more", picture.moves.len() - MOVES));
    }
    lines.join("\n")
}

fn heading(picture: &Picture) -> String {
    let ends = picture.columns.first().zip(picture.columns.last());
    let Some(((first, first_last), (_, last))) = ends else {
        return "PARTITIONS".to_owned();
    };
    let each = first_last.0 - first.0 + 1;
    match each {
        1 => format!("PARTITIONS {first} TO {last}"),
        each => format!("PARTITIONS {first} TO {last}, ABOUT {each} A COLUMN"),
    }
}

fn strip(row: &Row) -> String {
    row.cells.iter().map(|cell| glyph(*cell)).collect()
}

fn glyph(cell: Cell) -> char {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    match cell {
        Cell::Nothing => '·',
        Cell::CatchesUp => '░',
        Cell::Ready => '▒',
        Cell::Gone => '×',
        Cell::LetsGo => '▓',
        Cell::Owns => '█',
        Cell::Eighths(owned) => {
            let place = usize::from(owned.clamp(1, 8)) - 1;
            EIGHTHS.get(place).copied().unwrap_or('█')
        }
    }
}

fn legend(picture: &Picture) -> String {
    let owns = match picture.is_exact() {
        true => "█ owns   ▓ is to let go",
        false => "▁ to █ owns that much of a column",
    };
    format!("  {owns}   ▒ ready   ░ catches up   × is gone   · nothing")
}

/// Columns as wide as their widest cell; figures to the right.
fn aligned(rows: &[[String; 6]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += "  ";
            let pad = " ".repeat(width - cell.chars().count());
            let is_figure = matches!(column, 3 | 4);
            match is_figure {
                true => line += &format!("{pad}{cell}"),
                false => line += &format!("{cell}{pad}"),
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
