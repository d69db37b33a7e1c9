//! What happens to domains, as the daemon reports it.

use std::ffi::{c_char, c_int, c_longlong, c_ulonglong, c_void};
use std::ptr;

use virt_sys as sys;

use crate::subscription::{Family, Handler, free_handler};
use crate::{Connect, Error, Result, Subscription, UuidBytes, ffi};

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
    fn from_raw(event: c_int) -> Self {
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
    pub fn subscribe(
        &self,
        kind: EventKind,
        f: impl Fn(DomainEvent) + Send + Sync + 'static,
    ) -> Result<Subscription> {
        let (id, callback) = raw(kind);
        // SAFETY: to libvirt all are this type; it calls each with the arguments that belong to its event ID.
        let callback = unsafe { std::mem::transmute::<*const (), Generic>(callback) };
        let opaque = Handler::into_opaque(f);
        let (conn, free) = (self.as_ptr(), free_handler::<DomainEvent>);
        // SAFETY: a live connection, no domain for all, and a callback that takes what `opaque` is.
        let rc = unsafe {
            sys::virConnectDomainEventRegisterAny(conn, ptr::null_mut(), id, Some(callback), opaque, Some(free))
        };
        if rc < 0 {
            let error = Error::last();
            // SAFETY: libvirt did not take it over.
            unsafe { free(opaque) };
            return Err(error);
        }
        Ok(Subscription::new(self.clone(), rc, Family::Domain))
    }
}

/// What `virConnectDomainEventRegisterAny` takes for any callback.
type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// The event ID of a kind, and the callback with the arguments that libvirt documents for it.
fn raw(kind: EventKind) -> (c_int, *const ()) {
    let (id, callback) = match kind {
        EventKind::Lifecycle => (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle as *const ()),
        EventKind::Reboot => (sys::VIR_DOMAIN_EVENT_ID_REBOOT, reboot as *const ()),
        EventKind::RtcChange => (sys::VIR_DOMAIN_EVENT_ID_RTC_CHANGE, rtc_change as *const ()),
        EventKind::Watchdog => (sys::VIR_DOMAIN_EVENT_ID_WATCHDOG, watchdog as *const ()),
        EventKind::IoError => (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error as *const ()),
        EventKind::BlockJob => (sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job as *const ()),
        EventKind::TrayChange => (sys::VIR_DOMAIN_EVENT_ID_TRAY_CHANGE, tray_change as *const ()),
        EventKind::BalloonChange => (sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, balloon_change as *const ()),
        EventKind::DeviceAdded => (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device_added as *const ()),
        EventKind::DeviceRemoved => (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device_removed as *const ()),
        EventKind::DeviceRemovalFailed => {
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, device_removal_failed as *const ())
        }
        EventKind::AgentLifecycle => (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, agent_lifecycle as *const ()),
        EventKind::MetadataChange => (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata_change as *const ()),
        EventKind::BlockThreshold => (sys::VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD, block_threshold as *const ()),
        EventKind::MemoryDeviceSizeChange => {
            (sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE, memory_device_size_change as *const ())
        }
    };
    (id as c_int, callback)
}

type Conn = sys::virConnectPtr;
type Dom = sys::virDomainPtr;
type Text = *const c_char;
type Opaque = *mut c_void;

/// Hands an event on. Makes no libvirt call but for UUID and name, which ask nobody.
///
/// # Safety
/// `dom` is a live domain; `opaque` is a live `Handler<DomainEvent>`.
unsafe fn emit(dom: Dom, opaque: Opaque, detail: EventDetail) {
    let mut uuid = [0; 16];
    // SAFETY: the caller's promise, and room for 16 bytes.
    unsafe { sys::virDomainGetUUID(dom, uuid.as_mut_ptr()) };
    // SAFETY: the caller's promise; the domain keeps the string.
    let name = unsafe { ffi::copy(sys::virDomainGetName(dom)) };
    // SAFETY: the caller's promise.
    unsafe { Handler::call(opaque, DomainEvent { uuid, name, detail }) };
}

// The callbacks. libvirt calls them with a live domain, strings that live during the call, and the `opaque` that was
// registered and not yet freed: that is what makes them sound.

unsafe extern "C" fn lifecycle(_: Conn, dom: Dom, event: c_int, detail: c_int, opaque: Opaque) -> c_int {
    let event = LifecycleEvent::from_raw(event);
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::Lifecycle { event, detail }) };
    0
}

unsafe extern "C" fn reboot(_: Conn, dom: Dom, opaque: Opaque) {
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::Reboot) };
}

unsafe extern "C" fn rtc_change(_: Conn, dom: Dom, offset_s: c_longlong, opaque: Opaque) {
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::RtcChange { offset_s }) };
}

unsafe extern "C" fn watchdog(_: Conn, dom: Dom, action: c_int, opaque: Opaque) {
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::Watchdog { action }) };
}

unsafe extern "C" fn io_error(_: Conn, dom: Dom, path: Text, dev: Text, action: c_int, reason: Text, opaque: Opaque) {
    // SAFETY: see above.
    let (source_path, device, reason) = unsafe { (ffi::copy(path), ffi::copy(dev), ffi::copy(reason)) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::IoError { source_path, device, action, reason }) };
}

unsafe extern "C" fn block_job(_: Conn, dom: Dom, disk: Text, job_type: c_int, status: c_int, opaque: Opaque) {
    // SAFETY: see above.
    let disk = unsafe { ffi::copy(disk) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::BlockJob { disk, job_type, status }) };
}

unsafe extern "C" fn tray_change(_: Conn, dom: Dom, device: Text, reason: c_int, opaque: Opaque) {
    // SAFETY: see above.
    let device = unsafe { ffi::copy(device) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::TrayChange { device, reason }) };
}

unsafe extern "C" fn balloon_change(_: Conn, dom: Dom, actual_kib: c_ulonglong, opaque: Opaque) {
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::BalloonChange { actual_kib }) };
}

unsafe extern "C" fn device_added(_: Conn, dom: Dom, device: Text, opaque: Opaque) {
    // SAFETY: see above.
    let device = unsafe { ffi::copy(device) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::DeviceAdded { device }) };
}

unsafe extern "C" fn device_removed(_: Conn, dom: Dom, device: Text, opaque: Opaque) {
    // SAFETY: see above.
    let device = unsafe { ffi::copy(device) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::DeviceRemoved { device }) };
}

unsafe extern "C" fn device_removal_failed(_: Conn, dom: Dom, device: Text, opaque: Opaque) {
    // SAFETY: see above.
    let device = unsafe { ffi::copy(device) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::DeviceRemovalFailed { device }) };
}

unsafe extern "C" fn agent_lifecycle(_: Conn, dom: Dom, state: c_int, reason: c_int, opaque: Opaque) {
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::AgentLifecycle { state, reason }) };
}

unsafe extern "C" fn metadata_change(_: Conn, dom: Dom, kind: c_int, uri: Text, opaque: Opaque) {
    // SAFETY: see above.
    let uri = unsafe { ffi::copy_opt(uri) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::MetadataChange { kind, uri }) };
}

unsafe extern "C" fn block_threshold(
    _: Conn,
    dom: Dom,
    disk: Text,
    path: Text,
    threshold: c_ulonglong,
    excess: c_ulonglong,
    opaque: Opaque,
) {
    // SAFETY: see above.
    let (disk, path) = unsafe { (ffi::copy(disk), ffi::copy_opt(path)) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::BlockThreshold { disk, path, threshold, excess }) };
}

unsafe extern "C" fn memory_device_size_change(_: Conn, dom: Dom, alias: Text, size: c_ulonglong, opaque: Opaque) {
    // SAFETY: see above.
    let device = unsafe { ffi::copy(alias) };
    // SAFETY: see above.
    unsafe { emit(dom, opaque, EventDetail::MemoryDeviceSizeChange { device, size_kib: size }) };
}
