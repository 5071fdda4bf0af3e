//! Health and metrics for people and Prometheus.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use distrifs_engine::store;

use crate::node::Node;

/// `/health` and `/metrics`.
pub(crate) fn router(node: Arc<Node>, io_body: &'static str) -> Router {
    let health_of = node.clone();
    Router::new()
        .route("/health", get(move || std::future::ready(health(&health_of))))
        .route("/metrics", get(move || std::future::ready(metrics(&node, io_body))))
}

fn health(node: &Node) -> (StatusCode, &'static str) {
    if node.cluster.get().is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "has not joined a cluster yet\n")
    } else if node.disks.iter().all(|disk| !disk.is_healthy()) {
        (StatusCode::SERVICE_UNAVAILABLE, "no data folder takes writes\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

fn metrics(node: &Node, io_body: &str) -> String {
    let c = &node.counters;
    let mut out = String::new();
    for (name, kind, value) in [
        ("connections", "gauge", &c.connections),
        ("open_writes", "gauge", &c.open_writes),
        ("open_reads", "gauge", &c.open_reads),
        ("chunks_committed_total", "counter", &c.chunks_committed),
        ("writes_failed_total", "counter", &c.writes_failed),
        ("bytes_received_total", "counter", &c.bytes_received),
        ("bytes_sent_total", "counter", &c.bytes_sent),
        ("reads_total", "counter", &c.reads),
        ("reads_failed_total", "counter", &c.reads_failed),
        ("frames_refused_total", "counter", &c.frames_refused),
        ("connections_refused_total", "counter", &c.connections_refused),
        ("checked_bytes_total", "counter", &c.bytes_checked),
        ("copies_made_total", "counter", &c.copies_made),
        ("copies_failed_total", "counter", &c.copies_failed),
        ("replicas_checked_total", "counter", &c.scrub_replicas),
        ("replicas_found_corrupt_total", "counter", &c.scrub_corrupt),
        ("scrub_oldest_unchecked_seconds", "gauge", &c.scrub_oldest_seconds),
        ("scrub_pass_permille", "gauge", &c.scrub_pass_permille),
        ("data_folders_left_out", "gauge", &c.folders_left_out),
        ("chunks_in_quarantine", "gauge", &c.chunks_in_quarantine),
        ("journal_places_damaged", "gauge", &c.journal_damaged),
    ] {
        let value = value.load(Ordering::Relaxed);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE distrifs_datanode_{name} {kind}\ndistrifs_datanode_{name} {value}");
    }
    for (name, of) in [
        ("syncs_total", store::Counters::syncs as fn(&store::Counters) -> u64),
        ("journal_records_total", store::Counters::journal_records),
        ("journal_syncs_total", store::Counters::journal_syncs),
    ] {
        let value: u64 = node.disks.iter().map(|disk| of(&disk.store)).sum();
        let _ = writeln!(out, "# TYPE distrifs_datanode_{name} counter\ndistrifs_datanode_{name} {value}");
    }
    let _ = writeln!(out, "# TYPE distrifs_datanode_info gauge");
    let _ = writeln!(out, "distrifs_datanode_info{{node=\"{}\",io=\"{io_body}\"}} 1", node.id);
    let _ = writeln!(out, "# TYPE distrifs_datanode_disk_available_bytes gauge");
    for (i, disk) in node.disks.iter().enumerate() {
        let _ = writeln!(out, "distrifs_datanode_disk_available_bytes{{disk=\"{i}\"}} {}", disk.room().1);
    }
    let _ = writeln!(out, "# TYPE distrifs_datanode_disk_healthy gauge");
    for (i, disk) in node.disks.iter().enumerate() {
        let healthy = u8::from(disk.is_healthy());
        let _ = writeln!(out, "distrifs_datanode_disk_healthy{{disk=\"{i}\"}} {healthy}");
    }
    out
}
