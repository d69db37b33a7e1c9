//! What happens to domains, as the daemon reports it.

use std::ffi::c_int;
use std::ptr;

use virt_sys as sys;

use crate::event_raw::{Generic, raw};
use crate::ffi::check;
use crate::handler::Handler;
use crate::subscription::Family;
use crate::{Connect, Result, Subscription, UuidBytes};

/// Something that happened to a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainEvent {
    /// The domain's UUID.
    pub uuid: UuidBytes,
    /// The domain's name at that time.
    pub name: String,
    /// What happened.
    pub detail: EventDetail,
}

/// Which events to subscribe to (`virDomainEventID`); each kind gives the [`EventDetail`] of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventKind {
    /// Defined, started, stopped …
    Lifecycle,
    /// The guest rebooted.
    Reboot,
    /// The guest set its clock.
    RtcChange,
    /// The watchdog device fired.
    Watchdog,
    /// A disk had an I/O error (`VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON`).
    IoError,
    /// A block job ended or became ready (`VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2`).
    BlockJob,
    /// A CD-ROM tray was opened or closed.
    TrayChange,
    /// The balloon reached a size.
    BalloonChange,
    /// A device was added.
    DeviceAdded,
    /// A device is gone.
    DeviceRemoved,
    /// The guest refused to give a device up.
    DeviceRemovalFailed,
    /// The guest agent came or went.
    AgentLifecycle,
    /// Title, description or a metadata element changed.
    MetadataChange,
    /// Writes to a disk went past a limit that was set.
    BlockThreshold,
    /// A memory device (virtio-mem) reached a size.
    MemoryDeviceSizeChange,
}

/// What happened. Numbers are libvirt's, named in [`flags`](crate::flags).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventDetail {
    /// Defined, started, stopped …, and how or why (`flags::EVENT_*`).
    #[allow(missing_docs)]
    Lifecycle { event: LifecycleEvent, detail: i32 },
    /// The guest rebooted.
    Reboot,
    /// The guest set its clock to so many seconds from UTC.
    #[allow(missing_docs)]
    RtcChange { offset_s: i64 },
    /// The watchdog device fired; what was done (`virDomainEventWatchdogAction`).
    #[allow(missing_docs)]
    Watchdog { action: i32 },
    /// A disk had an I/O error: its path on the node, its alias, what was done (`flags::IO_ERROR_*`), and why:
    /// `enospc` (no space left), `eperm` or `eother`, or empty.
    #[allow(missing_docs)]
    IoError { source_path: String, device: String, action: i32, reason: String },
    /// A block job on the disk with this target name (`vda`): its type (`flags::BLOCK_JOB_TYPE_*`) and how it stands
    /// (`flags::BLOCK_JOB_COMPLETED`, `_FAILED`, `_CANCELED`, `_READY`).
    #[allow(missing_docs)]
    BlockJob { disk: String, job_type: i32, status: i32 },
    /// The tray of the device with this alias was opened (0) or closed (1).
    #[allow(missing_docs)]
    TrayChange { device: String, reason: i32 },
    /// The memory that the guest has now.
    #[allow(missing_docs)]
    BalloonChange { actual_kib: u64 },
    /// The device with this alias was added.
    #[allow(missing_docs)]
    DeviceAdded { device: String },
    /// The device with this alias is gone.
    #[allow(missing_docs)]
    DeviceRemoved { device: String },
    /// The guest refused to give up the device with this alias.
    #[allow(missing_docs)]
    DeviceRemovalFailed { device: String },
    /// The guest agent came or went (`flags::AGENT_CONNECTED`, `AGENT_DISCONNECTED`), and why (`flags::AGENT_REASON_*`).
    #[allow(missing_docs)]
    AgentLifecycle { state: i32, reason: i32 },
    /// Metadata of this kind changed (`flags::METADATA_*`), for elements that of the namespace `uri`.
    #[allow(missing_docs)]
    MetadataChange { kind: i32, uri: Option<String> },
    /// Writes to a disk (`vda`, or `vda[3]` for a layer) went `excess` bytes past `threshold` bytes.
    #[allow(missing_docs)]
    BlockThreshold { disk: String, path: Option<String>, threshold: u64, excess: u64 },
    /// The memory device with this alias has this size now.
    #[allow(missing_docs)]
    MemoryDeviceSizeChange { device: String, size_kib: u64 },
}

/// What changed in a domain's life (`virDomainEventType`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LifecycleEvent {
    /// Defined or redefined.
    Defined,
    /// No longer defined.
    Undefined,
    /// Started.
    Started,
    /// Paused.
    Suspended,
    /// Goes on.
    Resumed,
    /// Off.
    Stopped,
    /// Its operating system has switched off; Stopped follows.
    Shutdown,
    /// Suspended by its own operating system.
    PmSuspended,
    /// Crashed.
    Crashed,
    /// One that this crate doesn't know.
    Other(i32),
}

impl LifecycleEvent {
    pub(crate) fn from_raw(event: c_int) -> Self {
        match u32::try_from(event) {
            Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => Self::Defined,
            Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => Self::Undefined,
            Ok(sys::VIR_DOMAIN_EVENT_STARTED) => Self::Started,
            Ok(sys::VIR_DOMAIN_EVENT_SUSPENDED) => Self::Suspended,
            Ok(sys::VIR_DOMAIN_EVENT_RESUMED) => Self::Resumed,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => Self::Stopped,
            Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_EVENT_PMSUSPENDED) => Self::PmSuspended,
            Ok(sys::VIR_DOMAIN_EVENT_CRASHED) => Self::Crashed,
            _ => Self::Other(event),
        }
    }
}

impl Connect {
    /// Calls `f` on the event thread for each event of this kind, of any domain of the node, until the subscription
    /// is dropped (`virConnectDomainEventRegisterAny`). Of events that came before, or while the connection was
    /// lost, nobody tells: subscribe first, then list. Errors: INVALID_ARG if this kind is
    /// subscribed to on this connection (libvirt takes each callback once), NO_SUPPORT, those of a lost connection.
    pub fn subscribe(&self, kind: EventKind, f: impl Fn(DomainEvent) + Send + Sync + 'static) -> Result<Subscription> {
        let (id, callback) = raw(kind);
        // SAFETY: to libvirt all are this type; it calls each with the arguments that belong to its event ID.
        let callback = unsafe { std::mem::transmute::<*const (), Generic>(callback) };
        let handler = Handler::new(f);
        let (conn, all, opaque) = (self.as_ptr(), ptr::null_mut(), handler.opaque());
        // SAFETY: a live connection, no domain for all, and a callback that takes any `opaque`.
        let id = check(unsafe { sys::virConnectDomainEventRegisterAny(conn, all, id, Some(callback), opaque, None) })?;
        Ok(Subscription::new(self.clone(), id, Family::Domain, handler))
    }
}
