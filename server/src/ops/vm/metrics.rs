//! What a VM has used, over time.

use crate::{Context, Error, Result, metrics::query};
use api::{
    Time,
    metrics::{DescribeVmMetrics, VmMetrics},
    vm::VmState,
};

/// `describe-vm-metrics`
pub async fn describe(context: Context, request: DescribeVmMetrics) -> Result<VmMetrics> {
    let metrics = &context.app.metrics;
    let (id, entry) = context.app.index.resolve(&request.vm)?;
    let range = query::range(metrics, request.start, request.end, request.step_s.map(i64::from))?;
    let state = entry.state();
    if state != VmState::Running && !request.history {
        return Err(Error::WrongState {
            detail: format!("VM {} is {}, and only a running one is measured", entry.name(), state.as_str()),
            hint: Some("call with \"history\": true for what was measured before".to_owned()),
        });
    }
    let series = query::query(metrics, id, range, request.aggregate).await?;
    Ok(VmMetrics {
        vm: id,
        name: entry.name().to_owned(),
        step_s: range.step_s,
        resolution_s: range.resolution_s,
        times: range.times().map(|at_s| Time(at_s * 1000)).collect(),
        series,
    })
}
