//! A page for a run of `client stress`: its table, and plots of the latency's distribution, of latency and throughput over
//! time, and of what the load did to them.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::{Case, Operation, Run, Step, Tally, text};

const SIZE: (u32, u32) = (900, 420);
const COLORS: [RGBColor; 6] = [
    RGBColor(40, 90, 160),
    RGBColor(200, 90, 30),
    RGBColor(50, 130, 70),
    RGBColor(150, 50, 130),
    RGBColor(120, 120, 40),
    RGBColor(60, 60, 60),
];

/// The most points of a line that are shown each.
const DOTS_MAX: usize = 40;

/// A line of a plot.
struct Line {
    name: String,
    color: usize,
    /// Drawn paler, beside one of the same color.
    pale: bool,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn of(operation: Operation, points: impl Iterator<Item = (f64, f64)>) -> Self {
        Line { name: operation.to_string(), color: operation as usize, pale: false, points: points.collect() }
    }
}

/// What a plot's axes say, and how its latencies or rates grow upwards.
#[derive(Clone, Copy)]
struct Axes<'a> {
    x: &'a str,
    y: &'a str,
    logarithmic: bool,
}

const OVER_TIME: Axes<'static> = Axes { x: "seconds from the start", y: "ms", logarithmic: true };

/// A plot on the page.
struct Plot {
    file: &'static str,
    title: &'static str,
    what: String,
}

/// Writes index.html and its plots into a directory, which is created where it is missing.
pub fn write_page(run: &Run, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut plots = Vec::new();
    let mut plot = |file, title, what: &str| {
        plots.push(Plot { file, title, what: what.to_owned() });
        directory.join(file)
    };
    let what = "So many operations of a hundred, or fewer, took so long or less.";
    distribution(run, &plot("distribution.svg", "Latency by percentile", what))?;
    let each = format!("Each point is an interval of {}.", humantime::format_duration(run.timeline.interval()));
    for (file, title, quantile) in [
        ("time-p50.svg", "Latency over time: median", 0.5),
        ("time-p99.svg", "Latency over time: 99th percentile", 0.99),
    ] {
        let lines = run.timeline.at(quantile).map(|(operation, intervals)| {
            let points = intervals.iter().enumerate().filter(|(_, (count, _))| *count > 0);
            Line::of(operation, points.map(|(at, (_, us))| (middle_s(run, at), *us as f64 / 1e3)))
        });
        draw(&plot(file, title, &each), OVER_TIME, &lines.collect::<Vec<_>>())?;
    }
    if run.load.case == Case::Lifecycle {
        let seconds = run.timeline.interval().as_secs_f64();
        let lines = run.timeline.at(0.5).map(|(operation, intervals)| {
            let points = intervals.iter().enumerate();
            Line::of(operation, points.map(|(at, (count, _))| (middle_s(run, at), *count as f64 / seconds)))
        });
        let axes = Axes { y: "a second", logarithmic: false, ..OVER_TIME };
        let path = plot("throughput.svg", "Operations a second over time", "All clients together.");
        draw(&path, axes, &lines.collect::<Vec<_>>())?;
    } else {
        let path = plot("throughput.svg", "Throughput against load", "Operations a second that were answered.");
        throughput_against_load(run, &path)?;
        let path = plot("load.svg", "The probe's latency against load", "Medians, and 99th percentiles.");
        latency_against_load(run, &path)?;
    }
    std::fs::write(directory.join("index.html"), page(run, &plots)).context("index.html")
}

/// The middle of an interval.
fn middle_s(run: &Run, interval: usize) -> f64 {
    (interval as f64 + 0.5) * run.timeline.interval().as_secs_f64()
}

fn page(run: &Run, plots: &[Plot]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>ZooKeeper under load</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}\
         pre{{font-size:12px;overflow-x:auto;background:#f4f4f4;padding:1em}}img{{max-width:100%}}</style>\n\
         <h1>ZooKeeper under load</h1>\n<p>{}. Job {}.</p>\n",
        escape(&text::headline(run)),
        escape(&run.job)
    );
    for Plot { file, title, what } in plots {
        let _ = write!(html, "<h2>{title}</h2>\n<p>{what}</p>\n<img src=\"{file}\" alt=\"{title}\">\n");
    }
    let _ = write!(html, "<h2>Figures</h2>\n<pre>{}</pre>\n", escape(&text::table(run, true)));
    html
}

/// What was measured in the end: of a lifecycle all, else the probe's operations under full load.
fn measured(run: &Run) -> Option<&Tally> {
    let step = run.steps.last()?;
    Some(if run.load.case == Case::Lifecycle { &step.measured.load } else { &step.measured.probe })
}

fn distribution(run: &Run, path: &Path) -> anyhow::Result<()> {
    let lines = measured(run).into_iter().flat_map(Tally::iter).map(|(operation, measured)| {
        // Up to the last percentile that this many operations have.
        let most = (measured.count().max(2) as f64).log10();
        let points = (0..=100).map(|n| {
            let nines = most * f64::from(n) / 100.0;
            (nines, measured.at(1.0 - 10_f64.powf(-nines)) as f64 / 1e3)
        });
        Line::of(operation, points)
    });
    let lines: Vec<Line> = lines.collect();
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let axes = Axes { x: "percentile", y: "ms", logarithmic: true };
    plot(&root, axes, &lines, &percentile)?;
    root.present().with_context(|| path.display().to_string())
}

/// 0, 0.5, 1, 2, 3 nines as 0%, 68%, 90%, 99%, 99.9%.
fn percentile(nines: &f64) -> String {
    let decimals = (nines.ceil() as usize).saturating_sub(2);
    format!("{:.decimals$}%", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

const AGAINST_LOAD: Axes<'static> = Axes { x: "operations a second offered", y: "ms", logarithmic: true };

fn offered(step: &Step) -> f64 {
    step.offered.unwrap_or_default()
}

fn throughput_against_load(run: &Run, path: &Path) -> anyhow::Result<()> {
    let line = |name: &str, color, points| Line { name: name.to_owned(), color, pale: false, points };
    let due = run.steps.iter().map(|step| (offered(step), offered(step))).collect();
    let done = run.steps.iter().map(|step| (offered(step), step.measured.load.rate())).collect();
    let axes = Axes { y: "a second", logarithmic: false, ..AGAINST_LOAD };
    draw(path, axes, &[line("offered", 5, due), line("done", 0, done)])
}

fn latency_against_load(run: &Run, path: &Path) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for operation in [Operation::Create, Operation::Read, Operation::Modify, Operation::Watch] {
        for (name, quantile, pale) in [("p50", 0.5, false), ("p99", 0.99, true)] {
            let at = |step: &Step| Some((offered(step), step.measured.probe.get(operation)?.at(quantile) as f64 / 1e3));
            let line = Line::of(operation, run.steps.iter().filter_map(at));
            lines.push(Line { name: format!("{operation} {name}"), pale, ..line });
        }
    }
    draw(path, AGAINST_LOAD, &lines)
}

fn draw(path: &Path, axes: Axes<'_>, lines: &[Line]) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    plot(&root, axes, lines, &|x| format!("{x}"))?;
    root.present().with_context(|| path.display().to_string())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn plot(root: &Area<'_>, axes: Axes<'_>, lines: &[Line], x_label: &dyn Fn(&f64) -> String) -> anyhow::Result<()> {
    root.fill(&WHITE)?;
    let all = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(move |line| line.points.iter().map(of));
    let right = all(|point| point.0).fold(0.0, f64::max).max(1e-3) * 1.2; // room for the legend
    let (top, bottom) = (all(|point| point.1).fold(1e-3, f64::max), all(|point| point.1).fold(f64::MAX, f64::min));
    let mut builder = ChartBuilder::on(root);
    builder.margin(14).x_label_area_size(42).y_label_area_size(64);
    if axes.logarithmic {
        // From a power of ten: those are what the axis shows.
        let y = (10_f64.powf(bottom.clamp(1e-3, top).log10().floor())..top * 1.5).log_scale();
        fill(builder.build_cartesian_2d(0.0..right, y)?, axes, lines, x_label)
    } else {
        fill(builder.build_cartesian_2d(0.0..right, 0.0..top * 1.1)?, axes, lines, x_label)
    }
}

fn fill<'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    axes: Axes<'_>,
    lines: &[Line],
    x_label: &dyn Fn(&f64) -> String,
) -> anyhow::Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(x_label)
        .y_label_formatter(&|y| format!("{}", (y * 1e6).round() / 1e6))
        .label_style(("sans-serif", 14))
        .draw()?;
    for line in lines {
        let color = COLORS[line.color % COLORS.len()].mix(if line.pale { 0.45 } else { 1.0 });
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        // One point alone is no line.
        let few = line.points.iter().filter(|_| line.points.len() <= DOTS_MAX);
        chart.draw_series(few.map(|point| Circle::new(*point, 2, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(225, 225, 225))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}
