//! The pictures.

use core::fmt::Write;

use crate::report::Row;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 420.0;
/// The left, upper, right and lower end of each panel.
const MOVES: [f64; 4] = [70.0, 50.0, 520.0, 360.0];
const LOADS: [f64; 4] = [600.0, 50.0, 830.0, 360.0];
/// Colours that are told apart by the colour-blind, too (Okabe and Ito).
pub const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a00",
];

/// Draws the trials of one trace: the moves as they came, and the load over members at the end.
#[must_use]
pub fn draw(rows: &[Row]) -> String {
    let mut svg = String::new();
    // To write to a string does not fail.
    let _ = draw_into(&mut svg, rows);
    svg
}

fn draw_into(svg: &mut String, rows: &[Row]) -> core::fmt::Result {
    let title = rows.first().map_or("", |row| row.trace);
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"25\" font-size=\"15\">{title}: moves so far</text>\n\
         <text x=\"{}\" y=\"25\" font-size=\"15\">load of each member at the end</text>",
        MOVES[0], LOADS[0]
    )?;
    moves(svg, rows)?;
    loads(svg, rows)?;
    for (index, row) in rows.iter().enumerate() {
        let y = 70.0 + 20.0 * index as f64;
        writeln!(
            svg,
            "<rect x=\"850\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{}\"/>\
             <text x=\"870\" y=\"{y}\">{}</text>",
            y - 6.0,
            colour(index),
            row.policy
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(())
}

fn moves(svg: &mut String, rows: &[Row]) -> core::fmt::Result {
    let samples = || rows.iter().flat_map(|row| &row.measures.samples);
    let end = samples()
        .map(|it| it.at_s as f64 / 60.0)
        .fold(1.0, f64::max);
    let most = samples().map(|it| it.moves as f64).fold(1.0, f64::max);
    let panel = Panel::new(MOVES, (0.0, end), (0.0, most));
    panel.axes(svg, "minutes", "")?;
    for (index, row) in rows.iter().enumerate().rev() {
        let mut points = String::new();
        let mut before = 0.0;
        for sample in &row.measures.samples {
            let at = sample.at_s as f64 / 60.0;
            let moves = sample.moves as f64;
            // A step: what was moved before holds until now.
            for moves in [before, moves] {
                let (x, y) = panel.place(at, moves);
                write!(points, "{x:.1},{y:.1} ")?;
            }
            before = moves;
        }
        line(svg, &points, index)?;
    }
    Ok(())
}

fn loads(svg: &mut String, rows: &[Row]) -> core::fmt::Result {
    let all = || rows.iter().map(|row| &row.measures.loads);
    let members = all().map(Vec::len).max().unwrap_or(0).max(2) as f64;
    let most = all().flatten().copied().fold(1.0, f64::max);
    let panel = Panel::new(LOADS, (1.0, members), (0.0, most));
    panel.axes(svg, "members, the most loaded first", "1 = share")?;
    for (index, row) in rows.iter().enumerate().rev() {
        let mut points = String::new();
        for (place, load) in row.measures.loads.iter().enumerate() {
            let (x, y) = panel.place(place as f64 + 1.0, *load);
            write!(points, "{x:.1},{y:.1} ")?;
        }
        line(svg, &points, index)?;
    }
    Ok(())
}

/// The first ones are on top, and thinner, so that what lies under them is seen.
fn line(svg: &mut String, points: &str, index: usize) -> core::fmt::Result {
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"/>",
        points.trim_end(),
        colour(index),
        1.5 + 0.8 * index as f64
    )
}

fn colour(index: usize) -> &'static str {
    COLOURS
        .get(index % COLOURS.len())
        .copied()
        .unwrap_or("black")
}

struct Panel {
    ends: [f64; 4],
    x: (f64, f64),
    y: (f64, f64),
}

impl Panel {
    fn new(ends: [f64; 4], x: (f64, f64), y: (f64, f64)) -> Self {
        Self { ends, x, y }
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let [left, upper, right, lower] = self.ends;
        let part = |value: f64, (from, to): (f64, f64)| (value - from) / (to - from);
        (
            left + part(x, self.x) * (right - left),
            lower - part(y, self.y) * (lower - upper),
        )
    }

    fn axes(&self, svg: &mut String, below: &str, beside: &str) -> core::fmt::Result {
        let [left, upper, right, lower] = self.ends;
        for quarter in 0..=4 {
            let part = f64::from(quarter) / 4.0;
            let x = self.x.0 + part * (self.x.1 - self.x.0);
            let y = self.y.0 + part * (self.y.1 - self.y.0);
            let (at_x, at_y) = self.place(x, y);
            writeln!(
                svg,
                "<line x1=\"{left}\" y1=\"{at_y:.1}\" x2=\"{right}\" y2=\"{at_y:.1}\" \
                 stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <text x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{x:.0}</text>",
                left - 6.0,
                at_y + 4.0,
                tick(y, self.y.1),
                lower + 18.0
            )?;
        }
        writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{lower}\" x2=\"{right}\" y2=\"{lower}\" stroke=\"#555\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{below}</text>\
             <text x=\"{left}\" y=\"{}\">{beside}</text>",
            (left + right) / 2.0,
            lower + 40.0,
            upper - 8.0
        )
    }
}

fn tick(value: f64, most: f64) -> String {
    if most < 20.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
