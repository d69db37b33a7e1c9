//! Statistics and other answers that are lists of named values.

use std::ffi::c_int;

use virt_sys as sys;

use crate::{UuidBytes, ffi};

/// One domain's statistics.
#[derive(Clone, PartialEq, Debug)]
pub struct DomainStats {
    /// The domain's UUID.
    pub uuid: UuidBytes,
    /// The domain's name.
    pub name: String,
    /// Its number while it is on, another one after each start; -1 while it is off.
    pub id: i32,
    /// The values by name, for example `cpu.time` or `block.0.rd.bytes`, in libvirt's order.
    pub params: Vec<(String, Value)>,
}

impl DomainStats {
    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.params.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

/// A value of one of libvirt's types (`virTypedParameter`).
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A 32-bit number.
    Int(i32),
    /// A 32-bit number without sign.
    UInt(u32),
    /// A 64-bit number.
    Long(i64),
    /// A 64-bit number without sign.
    ULong(u64),
    /// A fraction.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    String(String),
}

impl Value {
    /// The value as a whole number, if it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::UInt(value) => Some((*value).into()),
            Self::Long(value) => u64::try_from(*value).ok(),
            Self::ULong(value) => Some(*value),
            Self::Double(_) | Self::Bool(_) | Self::String(_) => None,
        }
    }

    /// The value as a fraction, if it is a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::UInt(value) => Some((*value).into()),
            Self::Long(value) => Some(*value as f64),
            Self::ULong(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            Self::Bool(_) | Self::String(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Copies of the parameters; those of a type that this crate doesn't know are left out. Frees nothing.
///
/// # Safety
/// `params` is null or an array of `len` parameters as libvirt fills them.
pub(crate) unsafe fn read_params(params: sys::virTypedParameterPtr, len: c_int) -> Vec<(String, Value)> {
    if params.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    let params = unsafe { std::slice::from_raw_parts(params, usize::try_from(len).unwrap_or(0)) };
    // SAFETY: the caller's promise.
    params.iter().filter_map(|param| Some((ffi::field(&param.field), unsafe { read_value(param) }?))).collect()
}

/// # Safety
/// The parameter's type says which member of its union is set, as libvirt fills it.
unsafe fn read_value(param: &sys::virTypedParameter) -> Option<Value> {
    let value = &param.value;
    // SAFETY: the caller's promise.
    unsafe {
        Some(match u32::try_from(param.type_).ok()? {
            sys::VIR_TYPED_PARAM_INT => Value::Int(value.i),
            sys::VIR_TYPED_PARAM_UINT => Value::UInt(value.ui),
            sys::VIR_TYPED_PARAM_LLONG => Value::Long(value.l),
            sys::VIR_TYPED_PARAM_ULLONG => Value::ULong(value.ul),
            sys::VIR_TYPED_PARAM_DOUBLE => Value::Double(value.d),
            sys::VIR_TYPED_PARAM_BOOLEAN => Value::Bool(value.b != 0),
            sys::VIR_TYPED_PARAM_STRING => Value::String(ffi::copy(value.s)),
            _ => return None,
        })
    }
}

/// Copies of a list of domain statistics, which is freed.
///
/// # Safety
/// `records` is null or a list of `len` records from libvirt that nobody else frees.
pub(crate) unsafe fn take_records(records: *mut sys::virDomainStatsRecordPtr, len: c_int) -> Vec<DomainStats> {
    if records.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise; the slice ends before the free below.
    let list = unsafe { std::slice::from_raw_parts(records, usize::try_from(len).unwrap_or(0)) };
    // SAFETY: the caller's promise: each is a record with a live domain.
    let out =
        list.iter().filter_map(|record| unsafe { record.as_ref() }).map(|record| unsafe { read(record) }).collect();
    // SAFETY: ours to free, and not used again.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    out
}

/// # Safety
/// The record has a live domain and as many parameters as it says.
unsafe fn read(record: &sys::virDomainStatsRecord) -> DomainStats {
    let mut uuid = [0; 16];
    // SAFETY: the caller's promise, and room for 16 bytes.
    unsafe { sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()) };
    // SAFETY: the caller's promise; the domain keeps the string.
    let name = unsafe { ffi::copy(sys::virDomainGetName(record.dom)) };
    // SAFETY: the caller's promise. It is no number (-1) when the domain is off.
    let id = unsafe { sys::virDomainGetID(record.dom) };
    // SAFETY: the caller's promise.
    let params = unsafe { read_params(record.params, record.nparams) };
    DomainStats { uuid, name, id: id.cast_signed(), params }
}
