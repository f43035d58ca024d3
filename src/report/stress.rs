//! A page for a run of `client stress`: its table, and plots of the latency's distribution, of latency and throughput over
//! time, and of what the load did to them.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;

use crate::stress::{Case, Operation, Run, Tally, text};

const SIZE: (u32, u32) = (900, 420);
const COLORS: [RGBColor; 6] = [
    RGBColor(40, 90, 160),
    RGBColor(200, 90, 30),
    RGBColor(50, 130, 70),
    RGBColor(150, 50, 130),
    RGBColor(120, 120, 40),
    RGBColor(60, 60, 60),
];

/// A line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Writes index.html and its plots into a directory, which is created where it is missing.
pub fn write_page(run: &Run, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut plots: Vec<(&str, &str, &str)> = vec![(
        "distribution.svg",
        "Latency by percentile",
        "So many operations of a hundred, or fewer, took so long or less.",
    )];
    distribution(run, &directory.join("distribution.svg"))?;
    for (file, title, text) in [
        ("time-p50.svg", "Latency over time: median", "Each point is an interval."),
        ("time-p99.svg", "Latency over time: 99th percentile", "Each point is an interval."),
    ] {
        let quantile = if file.contains("p50") { 0.5 } else { 0.99 };
        let lines = run.timeline.at(quantile).map(|(operation, intervals)| {
            let points = intervals.iter().enumerate().filter(|(_, (count, _))| *count > 0);
            let points = points.map(|(at, (_, us))| (middle_s(run, at), *us as f64 / 1e3)).collect();
            Line { name: operation.to_string(), points }
        });
        draw(&directory.join(file), ("seconds from the start", "ms"), &lines.collect::<Vec<_>>())?;
        plots.push((file, title, text));
    }
    if run.load.case == Case::Lifecycle {
        let seconds = run.timeline.interval().as_secs_f64();
        let lines = run.timeline.at(0.5).map(|(operation, intervals)| {
            let points = intervals.iter().enumerate();
            let points = points.map(|(at, (count, _))| (middle_s(run, at), *count as f64 / seconds)).collect();
            Line { name: operation.to_string(), points }
        });
        draw(&directory.join("throughput.svg"), ("seconds from the start", "a second"), &lines.collect::<Vec<_>>())?;
        plots.push(("throughput.svg", "Operations a second over time", "All clients together."));
    } else {
        against_load(run, directory)?;
        plots.push(("throughput.svg", "Throughput against load", "Operations a second that were answered."));
        plots.push(("load.svg", "The probe's latency against load", "Medians, and 99th percentiles."));
    }
    std::fs::write(directory.join("index.html"), page(run, &plots)).context("index.html")
}

/// The middle of an interval.
fn middle_s(run: &Run, interval: usize) -> f64 {
    (interval as f64 + 0.5) * run.timeline.interval().as_secs_f64()
}

fn page(run: &Run, plots: &[(&str, &str, &str)]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>ZooKeeper under load</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}\
         pre{{font-size:12px;overflow-x:auto;background:#f4f4f4;padding:1em}}img{{max-width:100%}}</style>\n\
         <h1>ZooKeeper under load</h1>\n<p>{}. Job {}.</p>\n",
        escape(&text::headline(run)),
        escape(&run.job)
    );
    for (file, title, what) in plots {
        let _ = write!(html, "<h2>{title}</h2>\n<p>{what}</p>\n<img src=\"{file}\" alt=\"{title}\">\n");
    }
    let _ = write!(html, "<h2>Figures</h2>\n<pre>{}</pre>\n", escape(&text::table(run, true)));
    html
}

/// What was measured in the end: of a lifecycle all, else the probe's operations under full load.
fn measured(run: &Run) -> Option<&Tally> {
    let step = run.steps.last()?;
    Some(if run.load.case == Case::Lifecycle { &step.load } else { &step.probe })
}

fn distribution(run: &Run, path: &Path) -> anyhow::Result<()> {
    let lines = measured(run).into_iter().flat_map(Tally::iter).map(|(operation, measured)| {
        // Up to the last percentile that this many operations have.
        let most = (measured.count().max(2) as f64).log10();
        let points = (0..=100).map(|n| {
            let nines = most * f64::from(n) / 100.0;
            (nines, measured.at(1.0 - 10_f64.powf(-nines)) as f64 / 1e3)
        });
        Line { name: operation.to_string(), points: points.collect() }
    });
    let lines: Vec<Line> = lines.collect();
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let percent = |nines: &f64| format!("{}%", 100.0 * (1.0 - 10_f64.powf(-nines)));
    plot(&root, ("percentile", "ms"), &lines, &|nines| trimmed(&percent(nines)))?;
    root.present().with_context(|| path.display().to_string())
}

/// `99.90000000000001%` as `99.9%`.
fn trimmed(text: &str) -> String {
    let number: f64 = text.trim_end_matches('%').parse().unwrap_or_default();
    format!("{}%", (number * 1e4).round() / 1e4)
}

fn against_load(run: &Run, directory: &Path) -> anyhow::Result<()> {
    let offered = |step: &crate::stress::Step| step.offered.unwrap_or_default();
    let done = run.steps.iter().map(|step| (offered(step), step.load.rate())).collect();
    let due = run.steps.iter().map(|step| (offered(step), offered(step))).collect();
    let lines = [Line { name: "offered".to_owned(), points: due }, Line { name: "done".to_owned(), points: done }];
    draw(&directory.join("throughput.svg"), ("operations a second offered", "a second"), &lines)?;
    let mut lines = Vec::new();
    for operation in [Operation::Create, Operation::Read, Operation::Modify, Operation::Watch] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let at = |step: &crate::stress::Step| {
                Some((offered(step), step.probe.get(operation)?.at(quantile) as f64 / 1e3))
            };
            lines.push(Line { name: format!("{operation} {name}"), points: run.steps.iter().filter_map(at).collect() });
        }
    }
    draw(&directory.join("load.svg"), ("operations a second offered", "ms"), &lines)
}

fn draw(path: &Path, axes: (&str, &str), lines: &[Line]) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    plot(&root, axes, lines, &|x| format!("{x}"))?;
    root.present().with_context(|| path.display().to_string())
}

fn plot(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    (x_axis, y_axis): (&str, &str),
    lines: &[Line],
    x_label: &dyn Fn(&f64) -> String,
) -> anyhow::Result<()> {
    root.fill(&WHITE)?;
    let most = |of: fn(&(f64, f64)) -> f64| {
        let all = lines.iter().flat_map(|line| line.points.iter().map(of));
        all.fold(0.0, f64::max).max(1e-3) * 1.05
    };
    let mut chart = ChartBuilder::on(root)
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(x_axis)
        .y_desc(y_axis)
        .x_label_formatter(x_label)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (at, line) in lines.iter().enumerate() {
        let color = COLORS[at % COLORS.len()];
        // Beyond the colors, thinner: p99 behind p50 keeps its own.
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(225, 225, 225))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}
