//! One test a scenario script: each starts processes and a ZooKeeper of its own, and judges for itself.

use std::process::Command;

fn passes(scenario: &str) {
    // It builds what it runs, the laboratory's programs too: they are another package's, and no test of this one builds them.
    let run = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/run")).arg(scenario).output();
    let run = run.expect("scenarios/run can be run");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    print!("{out}");
}

#[test]
fn scenario_1a_the_worker_fails_and_a_new_one_comes() {
    passes("1a");
}

#[test]
fn scenario_1b_the_client_fails_before_its_task_completes() {
    passes("1b");
}

#[test]
fn scenario_2_one_of_two_workers_fails() {
    passes("2");
}

#[test]
fn scenario_3_workers_compete_for_the_tasks_of_two_clients() {
    passes("3");
}

#[test]
fn scenario_4_the_backup_takes_over_from_the_terminated_leader() {
    passes("4");
}

#[test]
fn scenario_leader_lags_in_a_long_garbage_collection() {
    passes("leader-lags");
}

#[test]
fn scenario_leader_deposed_while_it_lags() {
    passes("leader-deposed");
}

#[test]
fn scenario_worker_lags_past_its_session() {
    passes("worker-lags");
}

#[test]
fn scenario_worker_killed_and_only_the_timeout_tells() {
    passes("worker-killed");
}

#[test]
fn scenario_poison() {
    passes("poison");
}

#[test]
fn scenario_stress() {
    passes("stress");
}

#[test]
fn scenario_leader_killed_and_only_the_timeout_tells() {
    passes("leader-killed");
}

#[test]
fn scenario_client_killed_before_and_after_sealing() {
    passes("client-killed");
}

#[test]
fn scenario_both_killed_leader_and_worker() {
    passes("both-killed");
}

#[test]
fn scenario_everyone_killed_at_once() {
    passes("everyone-killed");
}

#[test]
fn scenario_server_restarted_under_load() {
    passes("server-restarted");
}

#[test]
fn scenario_ensemble_loses_its_leader_and_a_follower() {
    passes("ensemble");
}

#[test]
fn scenario_minority_of_servers_serves_nobody() {
    passes("minority");
}

#[test]
fn scenario_line_cut_between_a_write_and_its_reply() {
    passes("line-cut");
}

#[test]
fn scenario_replies_lost_while_thousands_are_submitted() {
    passes("replies-lost");
}

#[test]
fn scenario_clocks_of_one_role_are_an_hour_off() {
    passes("clocks");
}

#[test]
fn scenario_hostile_neighbours_full_machines_and_wrong_clocks() {
    passes("hostile");
}

#[test]
fn every_scenario_has_a_test() {
    let here = include_str!("scenarios.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
        if let Some(scenario) = name.strip_suffix(".sh").filter(|name| *name != "lib") {
            assert!(here.contains(&format!("passes(\"{scenario}\")")), "{scenario} has no test");
        }
    }
}
