//! Controls such as exposure, gain and white balance: found by name, checked before anything is
//! written, written, and read back.

use std::collections::BTreeMap;

use v4l::control::{self, Control, Description, Flags, MenuItem, Type};
use v4l::device::Device;

use super::refusal::{Refusal, none_if_invalid};

/// A control's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlValue {
    /// A number in the device's unit, or the index of a menu item.
    Integer(i64),
    /// On or off.
    Boolean(bool),
    /// The name of a menu item.
    Item(String),
}

/// A value to write, already checked against what the device accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    id: u32,
    name: String,
    value: i64,
}

/// A camera that takes another value than it was given would inspect with another exposure.
fn check_read_back(setting: &Setting, found: Option<i64>) -> Result<(), String> {
    if found == Some(setting.value) {
        return Ok(());
    }
    Err(format!(
        "control {}: expected {} after writing it, found {}",
        setting.name,
        setting.value,
        found.map_or_else(|| "nothing".to_owned(), |found| found.to_string())
    ))
}

/// Writes the configured controls and returns the values of all readable ones afterwards.
pub(super) fn apply(
    device: &Device,
    asked: &BTreeMap<String, ControlValue>,
) -> Result<Vec<(String, i64)>, Refusal> {
    let offered = none_if_invalid(device.query_controls())?;
    let settings = plan(asked, &offered).map_err(Refusal::Unsupported)?;
    for setting in &settings {
        let written = device.set_control(Control {
            id: setting.id,
            value: control::Value::Integer(setting.value),
        });
        written.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::ERANGE | libc::EACCES | libc::EPERM) => {
                Refusal::Unsupported(format!(
                    "control {} does not take {} now ({error}); an automatic mode that is on may hold it",
                    setting.name, setting.value
                ))
            }
            _ => Refusal::Failed(error),
        })?;
    }
    // Read back after all are written, because a control may change one that was written before it.
    for setting in &settings {
        let found = value(&device.control(setting.id)?.value);
        check_read_back(setting, found).map_err(Refusal::Unsupported)?;
    }
    let readable = offered.iter().filter(|control| {
        is_usable(control) && has_value(control.typ) && !control.flags.contains(Flags::WRITE_ONLY)
    });
    let values = readable.filter_map(|control| {
        // Controls that are not configured are kept for the record only. Some webcams list controls
        // that they cannot read.
        let found = device.control(control.id).ok()?;
        Some((normalised(&control.name), value(&found.value)?))
    });
    Ok(values.collect())
}

/// Spells a name as `v4l2-ctl` does: "Exposure Time, Absolute" becomes `exposure_time_absolute`.
fn normalised(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("_")
}

/// Whether a control can be used. Headings of groups are listed among the controls.
fn is_usable(control: &Description) -> bool {
    control.typ != Type::CtrlClass && !control.flags.contains(Flags::DISABLED)
}

/// Whether the crate can read back controls of this type.
fn has_value(typ: Type) -> bool {
    matches!(
        typ,
        Type::Integer | Type::Integer64 | Type::Boolean | Type::Menu
    )
}

fn value(found: &control::Value) -> Option<i64> {
    match found {
        control::Value::Integer(value) => Some(*value),
        control::Value::Boolean(value) => Some(i64::from(*value)),
        _ => None,
    }
}

/// The settings to write, automatic modes first: while one is on, drivers refuse or overwrite the
/// value that it controls.
fn plan(
    asked: &BTreeMap<String, ControlValue>,
    offered: &[Description],
) -> Result<Vec<Setting>, String> {
    let mut settings = asked
        .iter()
        .map(|(name, value)| setting(name, value, offered))
        .collect::<Result<Vec<_>, _>>()?;
    settings.sort_by_key(|setting| !setting.name.contains("auto"));
    Ok(settings)
}

fn setting(asked: &str, value: &ControlValue, offered: &[Description]) -> Result<Setting, String> {
    let name = normalised(asked);
    let control = offered
        .iter()
        .find(|control| is_usable(control) && normalised(&control.name) == name)
        .ok_or_else(|| format!("expected a control {name}; {}", describe(offered)))?;
    if control.flags.contains(Flags::READ_ONLY) {
        return Err(format!("control {name} is read-only"));
    }
    if !has_value(control.typ) {
        return Err(format!(
            "control {name} is of type {}, which cannot be read back and so is not set",
            control.typ
        ));
    }
    let accepted = accepted(control, value)
        .ok_or_else(|| format!("control {name}: expected {}, found {value}", range(control)))?;
    Ok(Setting {
        id: control.id,
        name,
        value: accepted,
    })
}

/// The value in the form that the device accepts, or `None` if it does not accept it.
fn accepted(control: &Description, value: &ControlValue) -> Option<i64> {
    let items = control.items.as_deref().unwrap_or_default();
    match (control.typ, value) {
        (Type::Menu, ControlValue::Integer(index)) => items
            .iter()
            .map(|(at, _)| i64::from(*at))
            .find(|at| at == index),
        (Type::Menu, ControlValue::Item(name)) => items
            .iter()
            .find(|(_, item)| normalised(&item_text(item)) == normalised(name))
            .map(|(at, _)| i64::from(*at)),
        (Type::Boolean, ControlValue::Boolean(on)) => Some(i64::from(*on)),
        (Type::Boolean, ControlValue::Integer(on @ (0 | 1))) => Some(*on),
        (Type::Integer | Type::Integer64, ControlValue::Integer(value)) => {
            // Computed in 128 bits, where even the widest range does not overflow.
            let above = i128::from(*value) - i128::from(control.minimum);
            let fits = (control.minimum..=control.maximum).contains(value)
                && above % i128::from(control.step.max(1)) == 0;
            fits.then_some(*value)
        }
        _ => None,
    }
}

fn item_text(item: &MenuItem) -> String {
    match item {
        MenuItem::Name(name) => name.clone(),
        MenuItem::Value(value) => value.to_string(),
    }
}

/// The values that a control accepts, as text.
fn range(control: &Description) -> String {
    match control.typ {
        Type::Boolean => "true or false".to_owned(),
        Type::Menu => {
            let items = control.items.as_deref().unwrap_or_default();
            let items: Vec<String> = items
                .iter()
                .map(|(at, item)| format!("{at} ({})", item_text(item)))
                .collect();
            format!("one of {}", items.join(", "))
        }
        _ => format!(
            "{}..={} in steps of {}",
            control.minimum, control.maximum, control.step
        ),
    }
}

fn describe(offered: &[Description]) -> String {
    let usable = offered.iter().filter(|control| is_usable(control));
    let names: Vec<String> = usable.map(|control| normalised(&control.name)).collect();
    if names.is_empty() {
        "the device has none".to_owned()
    } else {
        format!("the device has {}", names.join(", "))
    }
}

impl std::fmt::Display for ControlValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::Item(name) => write!(f, "`{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(id: u32, name: &str, typ: Type, range: (i64, i64, u64)) -> Description {
        Description {
            id,
            typ,
            name: name.to_owned(),
            minimum: range.0,
            maximum: range.1,
            step: range.2,
            default: range.0,
            flags: Flags::empty(),
            items: None,
        }
    }

    /// The controls of a typical webcam.
    fn offered() -> Vec<Description> {
        let mut exposure = control(3, "Auto Exposure", Type::Menu, (0, 3, 1));
        exposure.items = Some(vec![
            (1, MenuItem::Name("Manual Mode".to_owned())),
            (3, MenuItem::Name("Aperture Priority Mode".to_owned())),
        ]);
        let mut serial = control(6, "Serial", Type::Integer, (0, 9, 1));
        serial.flags = Flags::READ_ONLY;
        vec![
            control(1, "User Controls", Type::CtrlClass, (0, 0, 0)),
            control(2, "Gain", Type::Integer, (-10, 100, 5)),
            exposure,
            control(4, "Exposure Time, Absolute", Type::Integer, (3, 2047, 1)),
            control(5, "White Balance, Automatic", Type::Boolean, (0, 1, 1)),
            serial,
            control(7, "Exposure Bias", Type::IntegerMenu, (0, 3, 1)),
            control(8, "Wide", Type::Integer64, (i64::MIN, i64::MAX, 1)),
        ]
    }

    fn planned(asked: &[(&str, ControlValue)]) -> Result<Vec<(u32, i64)>, String> {
        let asked = asked
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let settings = plan(&asked, &offered())?;
        Ok(settings
            .iter()
            .map(|setting| (setting.id, setting.value))
            .collect())
    }

    #[test]
    fn names_are_spelt_as_by_v4l2_ctl() {
        assert_eq!(
            normalised("Exposure Time, Absolute"),
            "exposure_time_absolute"
        );
        assert_eq!(
            normalised("White Balance, Automatic"),
            "white_balance_automatic"
        );
        assert_eq!(
            normalised("exposure_time_absolute"),
            "exposure_time_absolute"
        );
        assert_eq!(
            normalised(" Backlight  Compensation "),
            "backlight_compensation"
        );
    }

    #[test]
    fn automatic_modes_are_written_first() {
        use ControlValue::{Boolean, Integer, Item};
        assert_eq!(
            planned(&[
                ("exposure_time_absolute", Integer(157)),
                ("Gain", Integer(20)),
                ("Auto Exposure", Item("manual mode".to_owned())),
                ("white_balance_automatic", Boolean(false)),
            ]),
            Ok(vec![(3, 1), (5, 0), (2, 20), (4, 157)])
        );
        assert_eq!(
            planned(&[("white_balance_automatic", Integer(1))]),
            Ok(vec![(5, 1)])
        );
        assert_eq!(planned(&[("auto_exposure", Integer(3))]), Ok(vec![(3, 3)]));
        assert_eq!(
            planned(&[("wide", Integer(i64::MAX))]),
            Ok(vec![(8, i64::MAX)])
        );
        assert_eq!(planned(&[]), Ok(vec![]));
    }

    #[test]
    fn refusals_name_the_accepted_values() {
        use ControlValue::{Boolean, Integer, Item};
        let refusal = |name, value| planned(&[(name, value)]).unwrap_err();
        for wrong in [105, -11, 13] {
            assert_eq!(
                refusal("gain", Integer(wrong)),
                format!("control gain: expected -10..=100 in steps of 5, found {wrong}")
            );
        }
        let menu = "control auto_exposure: expected one of 1 (Manual Mode), 3 (Aperture Priority Mode), found";
        assert_eq!(refusal("auto_exposure", Integer(0)), format!("{menu} 0"));
        assert_eq!(
            refusal("auto_exposure", Item("off".to_owned())),
            format!("{menu} `off`")
        );
        assert_eq!(
            refusal("auto_exposure", Boolean(false)),
            format!("{menu} false")
        );
        assert_eq!(
            refusal("white_balance_automatic", Integer(2)),
            "control white_balance_automatic: expected true or false, found 2"
        );
        assert_eq!(refusal("serial", Integer(2)), "control serial is read-only");
        assert!(refusal("exposure_bias", Integer(2)).contains("IntegerMenu"));
    }

    #[test]
    fn an_unknown_control_is_refused_with_a_list_of_controls() {
        let refusal = planned(&[("focus_absolute", ControlValue::Integer(1))]).unwrap_err();
        assert_eq!(
            refusal,
            "expected a control focus_absolute; the device has gain, auto_exposure, exposure_time_absolute, \
             white_balance_automatic, serial, exposure_bias, wide"
        );
        assert!(
            planned(&[("user_controls", ControlValue::Integer(1))]).is_err(),
            "a heading"
        );
        assert_eq!(describe(&[]), "the device has none");
    }

    #[test]
    fn a_control_that_reads_back_otherwise_is_refused() {
        let setting = Setting {
            id: 1,
            name: "exposure_time_absolute".to_owned(),
            value: 200,
        };
        assert_eq!(check_read_back(&setting, Some(200)), Ok(()));
        let error = check_read_back(&setting, Some(156)).unwrap_err();
        assert!(error.contains("exposure_time_absolute: expected 200"));
        assert!(error.contains("found 156"));
        assert!(check_read_back(&setting, None).is_err());
    }
}
