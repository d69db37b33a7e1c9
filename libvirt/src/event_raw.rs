//! The callbacks behind domain events: each takes the arguments that libvirt documents for its event ID.

use std::ffi::{c_char, c_int, c_longlong, c_ulonglong, c_void};

use virt_sys as sys;

use crate::{DomainEvent, EventDetail, EventKind, LifecycleEvent, ffi, handler};

/// What `virConnectDomainEventRegisterAny` takes for any callback.
pub(crate) type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// The event ID of a kind, and the callback with the arguments that libvirt documents for it.
pub(crate) fn raw(kind: EventKind) -> (c_int, *const ()) {
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
/// `dom` is a live domain.
unsafe fn emit(dom: Dom, opaque: Opaque, detail: EventDetail) {
    let mut uuid = [0; 16];
    // SAFETY: the caller's promise, and room for 16 bytes.
    unsafe { sys::virDomainGetUUID(dom, uuid.as_mut_ptr()) };
    // SAFETY: the caller's promise; the domain keeps the string.
    let name = unsafe { ffi::copy(sys::virDomainGetName(dom)) };
    handler::call(opaque, DomainEvent { uuid, name, detail });
}

// The callbacks. libvirt calls them with a live domain and strings that live during the call: that is what makes them
// sound.

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
