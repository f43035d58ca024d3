//! A case as a picture: a lane for each master, worker, client and server, time from left to right. Drawn from the audit's
//! data; faults are what the scenario noted when it caused them. Greys and shapes, so that it can be printed.

use std::collections::BTreeMap;
use std::path::Path;

use audit::{Life, SpanEnd};
use plotters::prelude::*;

use super::case::Case;

const WIDTH: u32 = 1000;
const LEFT: i32 = 110;
const RIGHT: i32 = 20;
const TOP: i32 = 70;
const LANE: i32 = 30;
const BOTTOM: i32 = 80;

const PRESENT: RGBColor = RGBColor(225, 225, 225);
const LEADING: RGBColor = RGBColor(60, 60, 60);
const COMMITTED: RGBColor = RGBColor(90, 140, 190);
const LOST: RGBColor = RGBColor(235, 160, 60);
const FAULT: RGBColor = RGBColor(190, 30, 30);

/// Draws `case` as SVG.
pub fn draw(case: &Case, path: &Path) -> anyhow::Result<()> {
    let lanes = lanes(case);
    let (began, ended) = (case.began_ms(), case.ended_ms());
    let height = TOP + LANE * lanes.len() as i32 + BOTTOM;
    let root = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let x = |ms: i64| {
        let share = (ms - began) as f64 / (ended - began).max(1) as f64;
        LEFT + (share.clamp(0.0, 1.0) * f64::from(WIDTH as i32 - LEFT - RIGHT)) as i32
    };
    let style = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    root.draw(&Text::new(format!("{}  {}", case.name, case.title), (10, 12), style(18)))?;
    let bottom = TOP + LANE * lanes.len() as i32;

    // Seconds.
    let seconds = (ended - began) / 1000;
    let step = [1, 2, 5, 10, 20, 60].into_iter().find(|step| seconds / step <= 15).unwrap_or(120);
    for second in (0..=seconds).step_by(step as usize) {
        let at = x(began + second * 1000);
        root.draw(&PathElement::new([(at, TOP - 6), (at, bottom)], RGBColor(205, 205, 205).stroke_width(1)))?;
        root.draw(&Text::new(format!("{second} s"), (at - 8, bottom + 6), style(13)))?;
    }

    for (row, (name, paths)) in lanes.iter().enumerate() {
        let (top, low) = (TOP + LANE * row as i32 + 5, TOP + LANE * (row as i32 + 1) - 5);
        root.draw(&Text::new(name.clone(), (10, top + 3), style(15)))?;
        for life in case.verdict.lives.iter().filter(|life| paths.contains(&life.path)) {
            root.draw(&Rectangle::new([(x(life.from_ms), top), (x(life.to_ms), low)], PRESENT.filled()))?;
        }
        for (up, down) in served(case, name, began, ended) {
            root.draw(&Rectangle::new([(x(up), top), (x(down), low)], PRESENT.filled()))?;
        }
        for leader in case.verdict.leaders.iter().filter(|l| paths.contains(&format!("/master/{}", l.candidate))) {
            let until = leader.until_ms.unwrap_or(ended);
            root.draw(&Rectangle::new([(x(leader.from_ms), top), (x(until), low)], LEADING.filled()))?;
        }
        for span in case.verdict.spans.iter().filter(|s| paths.contains(&format!("/workers/{}", s.worker))) {
            let color = if span.end == SpanEnd::Committed { COMMITTED } else { LOST };
            let area = [(x(span.from_ms), top + 4), (x(span.to_ms).max(x(span.from_ms) + 1), low - 4)];
            root.draw(&Rectangle::new(area, color.mix(0.35).filled()))?;
            root.draw(&Rectangle::new(area, color.stroke_width(1)))?;
        }
        // Labels that would overlap go to the lane's lower half, then are left out.
        let mut free = [i32::MIN; 2];
        for fault in case.faults.iter().filter(|fault| lane_of(&fault.target) == *name) {
            let at = x(fault.at_ms);
            root.draw(&PathElement::new([(at, top - 4), (at, low + 4)], FAULT.stroke_width(2)))?;
            let label = fault.what.clone();
            if let Some(half) = free.iter().position(|until| *until <= at) {
                free[half] = at + 7 * label.len() as i32 + 8;
                let y = if half == 0 { top - 6 } else { low - 7 };
                let behind = [(at + 2, y), (at + 4 + 7 * label.len() as i32, y + 11)];
                root.draw(&Rectangle::new(behind, WHITE.filled()))?;
                root.draw(&Text::new(label, (at + 3, y), ("sans-serif", 12).into_font().color(&FAULT)))?;
            }
        }
    }
    for ms in &case.verdict.fenced_ms {
        let at = x(*ms);
        let cross = TOP - 16;
        for ends in [[(at - 5, cross - 5), (at + 5, cross + 5)], [(at - 5, cross + 5), (at + 5, cross - 5)]] {
            root.draw(&PathElement::new(ends, BLACK.stroke_width(2)))?;
        }
        root.draw(&Text::new("refused by its guard", (at + 9, cross - 7), style(13)))?;
    }
    legend(&root, bottom + 45, style(13))?;
    root.present()?;
    Ok(())
}

fn legend(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    y: i32,
    style: TextStyle<'_>,
) -> anyhow::Result<()> {
    let keys = [
        (PRESENT, "in the tree, or up"),
        (LEADING, "leads"),
        (COMMITTED, "task, committed here"),
        (LOST, "task, lost or handed back"),
        (FAULT, "fault"),
    ];
    let mut at = LEFT;
    for (color, text) in keys {
        root.draw(&Rectangle::new([(at, y), (at + 16, y + 12)], color.filled()))?;
        root.draw(&Text::new(text, (at + 22, y), style.clone()))?;
        at += 40 + 8 * text.len() as i32;
    }
    Ok(())
}

/// When a server was up: all the time but between a kill and its revival.
fn served(case: &Case, lane: &str, began: i64, ended: i64) -> Vec<(i64, i64)> {
    if !lane.starts_with("server ") {
        return Vec::new();
    }
    let (mut spans, mut up) = (Vec::new(), Some(began));
    for fault in case.faults.iter().filter(|fault| fault.target == lane) {
        match (fault.what.as_str(), up) {
            ("kill", Some(since)) => {
                spans.push((since, fault.at_ms));
                up = None;
            }
            ("revive", None) => up = Some(fault.at_ms),
            _ => {}
        }
    }
    spans.extend(up.map(|since| (since, ended)));
    spans
}

/// Whose lane a fault belongs to: lines are named after the process at their end.
fn lane_of(target: &str) -> String {
    match target {
        "leader-line" => "m1".to_owned(),
        "worker-line" => "w1".to_owned(),
        "client-line" => "red".to_owned(),
        other => other.to_owned(),
    }
}

/// The lanes from top to bottom, each with the znodes that belong to it.
fn lanes(case: &Case) -> Vec<(String, Vec<String>)> {
    // A znode's name is the process's, a random part, and for candidates a number.
    let name = |life: &Life| {
        let last = life.path.rsplit('/').next().unwrap_or_default();
        let parts: Vec<&str> = last.split('-').collect();
        let random = if life.path.starts_with("/master/") { 2 } else { 1 };
        parts[..parts.len().saturating_sub(random).max(1)].join("-")
    };
    let mut groups: [BTreeMap<String, Vec<String>>; 3] = Default::default();
    for life in &case.verdict.lives {
        let group = ["/master/", "/workers/", "/tasks/"].iter().position(|root| life.path.starts_with(root));
        if let Some(group) = group {
            groups[group].entry(name(life)).or_default().push(life.path.clone());
        }
    }
    let mut lanes: Vec<(String, Vec<String>)> = groups.into_iter().flatten().collect();
    if case.servers > 1 || case.faults.iter().any(|fault| fault.target.starts_with("server ")) {
        lanes.extend((1..=case.servers).map(|number| (format!("server {number}"), Vec::new())));
    }
    lanes
}
