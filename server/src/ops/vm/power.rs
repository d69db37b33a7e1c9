//! Starting, stopping, rebooting, pausing, resuming.

use super::{Subject, is_passing, wrong_power};
use crate::{
    App, Context, Error, Result, admission, observe,
    task::{Held, Lock, Outline, Task, Work},
};
use api::{
    Rpc,
    vm::{PauseVm, RebootVm, RebootedVm, ResumeVm, StartVm, StopVm, StoppedVm, Vm, VmState},
};
use hypervisor::{ErrorKind, domain::Power};
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
    let (vm, held) = Subject::lock(app, &request.vm, &[Lock::Power], context.task, StartVm::NAME)?;
    match vm.power(app).await? {
        Power::Off => {}
        Power::Paused => {
            return Err(wrong_power(vm.entry.name(), Power::Paused, "shutoff", "a paused VM is resumed by resume-vm"));
        }
        Power::Running => return Err(wrong_power(vm.entry.name(), Power::Running, "shutoff", "it runs already")),
    }
    let view = app.index.get(vm.id).and_then(|entry| entry.seen).map(|seen| seen.view);
    let (vcpus, memory_mib) = view.map_or((1, 0), |view| (view.vcpus, view.memory_mib));
    let reservation = admission::reserve(app, &vm.node, vm.id, vcpus, memory_mib).await?;
    let outline = Outline::of(&["start-domain"]).on(&vm.node).admitted(&reservation);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let _reservation = reservation;
        let app = &task.app;
        let started = task.last_step("start-domain", None, async { Ok(vm.node.start(vm.id).await?) }).await;
        observe::refresh_after(app, &vm.node, vm.id).await;
        started?;
        app.index.to_wire(vm.id)
    })
    .at_once())
}

/// `stop-vm`
pub async fn stop(context: Context, request: StopVm) -> Result<Work<StoppedVm>> {
    let app = &context.app;
    let (vm, held, superseded) = take_place(app, &request.vm, context.task, StopVm::NAME, request.force).await?;
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
    let outline = asking_first(&vm, request.force, "cut-power", "is not off", timeout);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let mut forced = request.force;
        if !forced {
            let off = ask(&task, &vm, Wanted::Off, timeout, &superseded).await?;
            forced = !off;
        }
        if forced {
            task.last_step("cut-power", None, async { Ok(vm.node.cut_power(vm.id).await?) }).await?;
        }
        observe::refresh_after(app, &vm.node, vm.id).await;
        // A domain without a definition is gone when it is off.
        let gone = |_| Vm { state: VmState::Shutoff, ..app.index.at_once(|moment| moment.to_wire(&vm.entry)) };
        Ok(StoppedVm { vm: app.index.to_wire(vm.id).unwrap_or_else(gone), forced })
    }))
}

/// `reboot-vm`
pub async fn reboot(context: Context, request: RebootVm) -> Result<Work<RebootedVm>> {
    let app = &context.app;
    let (vm, held, superseded) = take_place(app, &request.vm, context.task, RebootVm::NAME, request.force).await?;
    match vm.power(app).await? {
        Power::Running => {}
        Power::Paused => {
            return Err(wrong_power(vm.entry.name(), Power::Paused, "running", "resume it first (resume-vm)"));
        }
        Power::Off => return Err(wrong_power(vm.entry.name(), Power::Off, "running", "start it (start-vm)")),
    }
    let timeout = Duration::from_secs(request.timeout_s.unwrap_or(TIMEOUT_S).into());
    let outline = asking_first(&vm, request.force, "reset", "has not rebooted", timeout);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        let app = &task.app;
        let mut forced = request.force;
        if !forced {
            let went_down = ask(&task, &vm, Wanted::Reset, timeout, &superseded).await?;
            forced = !went_down;
        }
        if forced {
            task.last_step("reset", None, reset(app, &vm)).await?;
        }
        observe::refresh_after(app, &vm.node, vm.id).await;
        Ok(RebootedVm { vm: app.index.to_wire(vm.id)?, forced })
    }))
}

/// Resets the guest, and waits for the event that tells of it: the next call must not take it for its own.
async fn reset(app: &App, vm: &Subject) -> Result<()> {
    let resets = || app.index.get(vm.id).and_then(|entry| entry.seen).map_or(0, |seen| seen.resets);
    let (before, mut changes) = (resets(), app.index.changes());
    vm.node.reset(vm.id).await?;
    let told = async { while resets() == before && changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(LOOK, told).await;
    Ok(())
}

/// `pause-vm`
pub async fn pause(context: Context, request: PauseVm) -> Result<Work<Vm>> {
    let app = &context.app;
    let (vm, held) = Subject::lock(app, &request.vm, &[Lock::Power], context.task, PauseVm::NAME)?;
    match vm.power(app).await? {
        Power::Running => {}
        power => return Err(wrong_power(vm.entry.name(), power, "running", "only a running VM can be paused")),
    }
    let outline = Outline::of(&["pause-domain"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        task.last_step("pause-domain", None, async { Ok(vm.node.pause(vm.id).await?) }).await?;
        observe::refresh_after(&task.app, &vm.node, vm.id).await;
        task.app.index.to_wire(vm.id)
    })
    .at_once())
}

/// `resume-vm`
pub async fn resume(context: Context, request: ResumeVm) -> Result<Work<Vm>> {
    let app = &context.app;
    let (vm, held) = Subject::lock(app, &request.vm, &[Lock::Power], context.task, ResumeVm::NAME)?;
    match vm.power(app).await? {
        Power::Paused => {}
        power => return Err(wrong_power(vm.entry.name(), power, "paused", "only a paused VM can be resumed")),
    }
    let outline = Outline::of(&["resume-domain"]).on(&vm.node);
    Ok(Work::new(vm.target(), held, outline, move |task| async move {
        task.last_step("resume-domain", None, async { Ok(vm.node.resume(vm.id).await?) }).await?;
        observe::refresh_after(&task.app, &vm.node, vm.id).await;
        task.app.index.to_wire(vm.id)
    })
    .at_once())
}

/// The outline of a call that asks the guest, and goes on by force when that is in vain, or only by force.
fn asking_first(vm: &Subject, force: bool, by_force: &str, in_vain: &str, timeout: Duration) -> Outline {
    let outline = match force {
        true => Outline::of(&[by_force]),
        false => {
            Outline::of(&["ask-guest"]).then_if(by_force, format!("the guest {in_vain} after {} s", timeout.as_secs()))
        }
    };
    outline.on(&vm.node)
}

/// The VM of this name or id, with its power lock, for a call that may wait for the guest, and what ends that wait. A
/// forced call ends one that waits, and takes its place.
async fn take_place(
    app: &App,
    reference: &str,
    task: Uuid,
    method: &'static str,
    force: bool,
) -> Result<(Subject, Vec<Held>, CancellationToken)> {
    let found = Subject::find(app, reference)?;
    let superseded = CancellationToken::new();
    let waiting = (!force).then(|| superseded.clone());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let taken = app.locks.take_waiting(found.id, found.entry.name(), &[Lock::Power], task, method, waiting.clone());
        match taken {
            Err(Error::Busy { .. })
                if force && Instant::now() < deadline && app.locks.supersede(found.id, Lock::Power) =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken => {
                let held = taken?;
                return Ok((found.again(app)?, held, superseded));
            }
        }
    }
}

/// What a guest is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Off,
    Reset,
}

/// The step that waits for the guest, until the task is cancelled.
async fn ask(
    task: &Task,
    vm: &Subject,
    wanted: Wanted,
    timeout: Duration,
    superseded: &CancellationToken,
) -> Result<bool> {
    let asking = ask_guest(&task.app, vm, wanted, timeout, superseded);
    task.step("ask-guest", None, task.unless_cancelled(asking)).await
}

/// Presses the power button until the guest is off, or was reset. False when it isn't within the timeout.
async fn ask_guest(
    app: &App,
    vm: &Subject,
    wanted: Wanted,
    timeout: Duration,
    superseded: &CancellationToken,
) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    let mut changes = app.index.changes();
    let mut press_at = Instant::now();
    let seen = || app.index.get(vm.id).and_then(|entry| entry.seen);
    let resets = seen().map_or(0, |seen| seen.resets);
    let connection = vm.node.status();
    let came_about = || match wanted {
        Wanted::Off => seen().is_none_or(|seen| seen.power == Power::Off),
        Wanted::Reset => seen().is_some_and(|seen| seen.resets > resets),
    };
    loop {
        if superseded.is_cancelled() {
            return Err(Error::Superseded(format!("a forced call for VM {} took this one's place", vm.entry.name())));
        }
        if came_about() {
            return Ok(true);
        }
        // A QEMU that hangs answers neither; the deadline and a forced call are not delayed by it.
        let look = async {
            if Instant::now() >= press_at {
                press_at = Instant::now() + PRESS_AGAIN;
                let pressed = match wanted {
                    Wanted::Off => vm.node.press_power_button(vm.id).await,
                    Wanted::Reset => vm.node.ask_reboot(vm.id).await,
                };
                match pressed {
                    // It went off in between.
                    Err(error) if error.kind == ErrorKind::WrongState => {}
                    // The node is away for a moment; the guest may still have heard.
                    Err(error) if is_passing(&error) => {}
                    pressed => pressed?,
                }
            }
            // An event may have been missed.
            match vm.node.power(vm.id).await {
                Err(error) if is_passing(&error) => Ok(false),
                power => Ok(power?.is_none_or(|(power, _)| power == Power::Off)),
            }
        };
        let off = tokio::select! {
            off = look => off.map_err(|error: hypervisor::Error| Error::from(error))?,
            () = superseded.cancelled() => continue,
            () = tokio::time::sleep(deadline.saturating_duration_since(Instant::now())) => false,
        };
        match wanted {
            Wanted::Off if off => return Ok(true),
            Wanted::Reset if off => {
                return Err(Error::WrongState {
                    detail: format!("VM {} powered off instead of rebooting", vm.entry.name()),
                    hint: Some("start it (start-vm)".to_owned()),
                });
            }
            _ => {}
        }
        if Instant::now() >= deadline {
            // Events of a lost connection are lost: the guest may have rebooted, and must not be reset for it.
            if wanted == Wanted::Reset && vm.node.status() != connection {
                return Err(Error::WrongState {
                    detail: format!(
                        "the connection to node {} was lost meanwhile, so it isn't known whether VM {} rebooted",
                        vm.node.name(),
                        vm.entry.name()
                    ),
                    hint: Some("look at the guest before you call again".to_owned()),
                });
            }
            return Ok(false);
        }
        let pause = LOOK.min(deadline.saturating_duration_since(Instant::now()));
        let changed = async { while !came_about() && changes.changed().await.is_ok() {} };
        tokio::select! {
            () = changed => {}
            () = superseded.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
