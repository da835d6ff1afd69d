//! The outcomes as pictures.

use crate::report::Outcome;
use crate::suspicion::{Curve, Point};

/// A panel, and what is around it, in pixels.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 30.0;
const GAP: f64 = 62.0;
const COLUMNS: usize = 3;
/// Of the detectors: `fixed-timeout` and `phi-accrual`.
const COLOURS: [&str; 2] = ["#c05a1c", "#1c5fc0"];
/// Mistakes an hour, on a logarithmic axis; further to the left there were none.
const MISTAKES: (f64, f64) = (0.003, 30.0);
/// The longest detection that is drawn, in timeouts.
const DETECTION_MAX: f64 = 2.0;

/// Detection time against mistakes: a panel for each trace, a curve for each detector.
#[must_use]
pub fn curves(outcomes: &[Outcome]) -> String {
    let mut svg = Svg::new(outcomes.len());
    for (index, outcome) in outcomes.iter().enumerate() {
        let panel = svg.panel(index, &outcome.trace);
        panel.axes(&mut svg, "mistakes in an hour", "detection, in timeouts");
        for exponent in -2..=1 {
            let mistakes = 10_f64.powi(exponent);
            panel.x_tick(&mut svg, across(mistakes), &format!("{mistakes}"));
        }
        panel.x_tick(&mut svg, 0.0, "none");
        for timeouts in [0.0, 0.5, 1.0, 1.5, 2.0] {
            panel.y_tick(&mut svg, timeouts / DETECTION_MAX, &format!("{timeouts}"));
        }
        let detectors = [&outcome.fixed.suspicion, &outcome.phi.suspicion];
        for (curve, colour) in detectors.into_iter().zip(COLOURS) {
            panel.line(&mut svg, &path(curve, outcome.timeout_ms), colour);
            let (x, y) = place(&curve.configured, outcome.timeout_ms);
            panel.dot(&mut svg, (x, y), colour);
        }
    }
    svg.end("dots: as configured")
}

/// Mistaken expiries: a panel for each trace, a bar for each detector.
#[must_use]
pub fn expiries(outcomes: &[Outcome]) -> String {
    let mut svg = Svg::new(outcomes.len());
    let mistaken = |outcome: &Outcome| {
        outcome
            .fixed
            .expiry
            .mistaken
            .max(outcome.phi.expiry.mistaken)
    };
    let most = outcomes.iter().map(mistaken).max().unwrap_or(0).max(1) as f64;
    for (index, outcome) in outcomes.iter().enumerate() {
        let panel = svg.panel(index, &outcome.trace);
        panel.axes(&mut svg, "", "mistaken expiries");
        for part in [0.0, 0.5, 1.0] {
            panel.y_tick(&mut svg, part * 0.9, &format!("{:.0}", part * most));
        }
        let detectors = [&outcome.fixed.expiry, &outcome.phi.expiry];
        for ((bar, expiry), colour) in detectors.into_iter().enumerate().zip(COLOURS) {
            let label = format!("{}, p99 {:.2}", expiry.mistaken, expiry.p99_timeouts);
            let height = expiry.mistaken as f64 / most * 0.9;
            panel.bar(&mut svg, bar, height, colour, &label);
        }
    }
    svg.end("p99: from a crash to the expiry, in timeouts")
}

fn path(curve: &Curve, timeout_ms: f64) -> Vec<(f64, f64)> {
    let points = curve.points.iter().map(|point| place(point, timeout_ms));
    let mut path = Vec::new();
    for (x, y) in points {
        if y > 1.0 {
            break;
        }
        path.push((x, y));
        if x <= 0.0 {
            break;
        }
    }
    path
}

/// Where a point is in its panel, from 0 to 1 each way.
fn place(point: &Point, timeout_ms: f64) -> (f64, f64) {
    let y = point.detection_ms / timeout_ms / DETECTION_MAX;
    (across(point.mistakes_an_hour), y.min(1.0))
}

fn across(mistakes_an_hour: f64) -> f64 {
    let part = (mistakes_an_hour / MISTAKES.0).ln() / (MISTAKES.1 / MISTAKES.0).ln();
    if part.is_finite() {
        part.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

struct Svg {
    text: String,
    width: f64,
    height: f64,
}

/// Where a panel's lower left corner is.
#[derive(Clone, Copy)]
struct Panel {
    x: f64,
    y: f64,
}

impl Svg {
    fn new(panels: usize) -> Self {
        let columns = COLUMNS.min(panels.max(1)) as f64;
        let rows = panels.div_ceil(COLUMNS) as f64;
        Self {
            text: String::new(),
            width: LEFT + columns * (WIDTH + GAP),
            height: TOP + rows * (HEIGHT + GAP) + 24.0,
        }
    }

    fn panel(&mut self, index: usize, title: &str) -> Panel {
        let panel = Panel {
            x: LEFT + (index % COLUMNS) as f64 * (WIDTH + GAP),
            y: TOP + HEIGHT + (index / COLUMNS) as f64 * (HEIGHT + GAP),
        };
        self.words(panel.x, panel.y - HEIGHT - 8.0, "start", title, "bold");
        panel
    }

    fn words(&mut self, x: f64, y: f64, anchor: &str, words: &str, weight: &str) {
        self.text += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">{words}</text>\n"
        );
    }

    /// With the legend, and a note.
    fn end(mut self, note: &str) -> String {
        let y = self.height - 14.0;
        let names = ["fixed-timeout", "phi-accrual"];
        for (index, (name, colour)) in names.into_iter().zip(COLOURS).enumerate() {
            let x = LEFT + 130.0 * index as f64;
            self.text +=
                &format!("<path d=\"M{x} {y}h22\" stroke=\"{colour}\" stroke-width=\"3\"/>\n");
            self.words(x + 28.0, y + 4.0, "start", name, "normal");
        }
        self.words(LEFT + 270.0, y + 4.0, "start", note, "normal");
        let (width, height) = (self.width, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.text
        )
    }
}

impl Panel {
    fn axes(self, svg: &mut Svg, across: &str, up: &str) {
        let (x, y) = (self.x, self.y);
        svg.text += &format!(
            "<path d=\"M{x} {}V{y}H{}\" fill=\"none\" stroke=\"#444\"/>\n",
            y - HEIGHT,
            x + WIDTH
        );
        svg.words(x + WIDTH, y + 30.0, "end", across, "normal");
        svg.words(x + WIDTH, y - HEIGHT - 8.0, "end", up, "normal");
    }

    fn x_tick(self, svg: &mut Svg, part: f64, label: &str) {
        let x = self.x + part * WIDTH;
        svg.text += &format!(
            "<path d=\"M{x:.1} {}V{}\" stroke=\"#ddd\"/>\n",
            self.y,
            self.y - HEIGHT
        );
        svg.words(x, self.y + 15.0, "middle", label, "normal");
    }

    fn y_tick(self, svg: &mut Svg, part: f64, label: &str) {
        let y = self.y - part * HEIGHT;
        svg.text += &format!(
            "<path d=\"M{} {y:.1}H{}\" stroke=\"#ddd\"/>\n",
            self.x,
            self.x + WIDTH
        );
        svg.words(self.x - 6.0, y + 4.0, "end", label, "normal");
    }

    fn line(self, svg: &mut Svg, path: &[(f64, f64)], colour: &str) {
        let points: Vec<String> = path
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", self.x + x * WIDTH, self.y - y * HEIGHT))
            .collect();
        svg.text += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>\n",
            points.join(" ")
        );
    }

    fn dot(self, svg: &mut Svg, (x, y): (f64, f64), colour: &str) {
        svg.text += &format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\n",
            self.x + x * WIDTH,
            self.y - y * HEIGHT
        );
    }

    fn bar(self, svg: &mut Svg, index: usize, part: f64, colour: &str, label: &str) {
        let x = self.x + 40.0 + 130.0 * index as f64;
        let y = self.y - part * HEIGHT;
        svg.text += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"90\" height=\"{:.1}\" fill=\"{colour}\"/>\n",
            part * HEIGHT
        );
        svg.words(x + 45.0, y - 5.0, "middle", label, "normal");
    }
}
