//! Starting and stopping.

use super::{Subject, wrong_power};
use crate::{
    App, Context, Error, Result, admission, reconcile,
    task::{Lock, Work},
};
use api::{
    Rpc,
    vm::{StartVm, StopVm, StoppedVm, Vm},
};
use hypervisor::domain::Power;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a guest has to power off, when the caller doesn't say.
const TIMEOUT_S: u32 = 90;
/// How often the power button is pressed: a guest that is still in its firmware doesn't hear it.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// How often the power state is read while waiting, beside the events.
const LOOK: Duration = Duration::from_secs(2);

/// `start-vm`
pub async fn start(context: Context, request: StartVm) -> Result<Work<Vm>> {
    let app = &context.app;
    let vm = Subject::find(app, &request.vm)?;
    let held = app.locks.take(vm.id, vm.entry.name(), &[Lock::Power], context.task, StartVm::NAME)?;
    match vm.power(app).await? {
        Power::Off => {}
        Power::Paused => {
            return Err(wrong_power(vm.entry.name(), Power::Paused, "shutoff", "a paused VM is resumed by resume-vm"));
        }
        Power::Running => return Err(wrong_power(vm.entry.name(), Power::Running, "shutoff", "it runs already")),
    }
    let view = app.index.get(vm.id).and_then(|entry| entry.seen).map(|seen| seen.view);
    let (vcpus, memory_mib) = view.map_or((1, 0), |view| (view.vcpus, view.memory_mib));
    let reservation = admission::reserve(app, &vm.node, vm.id, vcpus, memory_mib)?;
    Ok(Work::new(vm.target(), held, move |task| async move {
        let _reservation = reservation;
        let app = &task.app;
        let started = task.step("start-domain", None, async { Ok(vm.node.start(vm.id).await?) }).await;
        reconcile::refresh(app, &vm.node, vm.id).await?;
        started?;
        app.index.to_wire(vm.id)
    }))
}

/// `stop-vm`
pub async fn stop(context: Context, request: StopVm) -> Result<Work<StoppedVm>> {
    let app = &context.app;
    let vm = Subject::find(app, &request.vm)?;
    let superseded = CancellationToken::new();
    let waiting = (!request.force).then(|| superseded.clone());
    let held = take_place(app, &vm, context.task, request.force, waiting).await?;
    match vm.power(app).await? {
        Power::Running => {}
        // A paused guest can't hear the power button; its power can be cut.
        Power::Paused if request.force => {}
        Power::Paused => {
            return Err(wrong_power(
                vm.entry.name(),
                Power::Paused,
                "running",
                "resume it first (resume-vm), or use force",
            ));
        }
        Power::Off => return Err(wrong_power(vm.entry.name(), Power::Off, "running", "it is off already")),
    }
    let timeout = Duration::from_secs(request.timeout_s.unwrap_or(TIMEOUT_S).into());
    Ok(Work::new(vm.target(), held, move |task| async move {
        let app = &task.app;
        let mut forced = request.force;
        if !forced {
            let off = task.step("ask-guest", None, ask_guest(app, &vm, timeout, &superseded)).await?;
            forced = !off;
        }
        if forced {
            task.step("cut-power", None, async { Ok(vm.node.cut_power(vm.id).await?) }).await?;
        }
        reconcile::refresh(app, &vm.node, vm.id).await?;
        Ok(StoppedVm { vm: app.index.to_wire(vm.id)?, forced })
    }))
}

/// Takes the power lock. A forced stop ends one that waits for the guest, and takes its place.
async fn take_place(
    app: &App,
    vm: &Subject,
    task: Uuid,
    force: bool,
    waiting: Option<CancellationToken>,
) -> Result<Vec<crate::task::Held>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let taken = app.locks.take_waiting(vm.id, vm.entry.name(), &[Lock::Power], task, StopVm::NAME, waiting.clone());
        match taken {
            Err(Error::Busy { .. })
                if force && Instant::now() < deadline && app.locks.supersede(vm.id, Lock::Power) =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken => return taken,
        }
    }
}

/// Presses the power button until the guest is off. False when it isn't within the timeout.
async fn ask_guest(app: &App, vm: &Subject, timeout: Duration, superseded: &CancellationToken) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    let mut changes = app.index.changes();
    let mut press_at = Instant::now();
    loop {
        if superseded.is_cancelled() {
            return Err(Error::Superseded(format!("VM {} was forced off by another call meanwhile", vm.entry.name())));
        }
        if Instant::now() >= press_at {
            press_at = Instant::now() + PRESS_AGAIN;
            match vm.node.press_power_button(vm.id).await {
                // It went off in between.
                Err(error) if error.kind == hypervisor::ErrorKind::WrongState => {}
                pressed => pressed?,
            }
        }
        let seen_off = || app.index.get(vm.id).is_none_or(|entry| entry.power() == Some(Power::Off));
        if seen_off() || vm.node.power(vm.id).await?.is_none_or(|(power, _)| power == Power::Off) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let pause = LOOK.min(deadline.saturating_duration_since(Instant::now()));
        let changed = async { while !seen_off() && changes.changed().await.is_ok() {} };
        tokio::select! {
            () = changed => {}
            () = superseded.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
