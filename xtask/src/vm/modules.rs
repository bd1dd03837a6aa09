//! Kernel modules with all that they need, and the modules.dep that says so to modprobe. Read from the modules
//! themselves: the packages carry no such list, depmod makes it at installation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every .ko below `folder`, by its normal name.
pub(crate) fn collect(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            found.insert(normal(&stem), path);
        }
    }
    Ok(())
}

/// Copies `wanted` and everything they depend on into a new folder, with modules.dep.
pub(crate) fn install(
    found: &BTreeMap<String, PathBuf>,
    wanted: &[&str],
    into: &Path,
) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    let mut needs = BTreeMap::new();
    let mut open: Vec<String> = wanted.iter().map(|name| normal(name)).collect();
    while let Some(name) = open.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let path = found
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let depends = depends(&bytes);
        fs::write(into.join(format!("{name}.ko")), bytes)?;
        open.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    let mut text = String::new();
    for name in needs.keys() {
        let mut all = Vec::new();
        closure(name, &needs, &mut all);
        let files = all.iter().map(|module| format!(" {module}.ko"));
        text.push_str(&format!("{name}.ko:{}\n", files.collect::<String>()));
    }
    let list = into.join("modules.dep");
    fs::write(&list, text).with_context(|| format!("writing {}", list.display()))
}

/// What `name` needs, each module before those that it needs itself.
fn closure(name: &str, needs: &BTreeMap<String, Vec<String>>, all: &mut Vec<String>) {
    for next in needs.get(name).into_iter().flatten() {
        all.retain(|module| module != next);
        all.push(next.clone());
        closure(next, needs, all);
    }
}

/// A module carries the names of those that it needs, as `depends=a,b` among its NUL-terminated notes.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|part| part == key) else {
        return Vec::new();
    };
    let list = module[at + key.len()..].split(|byte| *byte == 0).next();
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

/// `crc32c-intel` and `crc32c_intel` are one module.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_after_what_needs_them_and_once() {
        assert_eq!(
            depends(b"\x7fELF\0depends=mc,v4l2-tpg\0x"),
            ["mc", "v4l2_tpg"]
        );
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let needs = BTreeMap::from([
            ("a".to_owned(), list(&["c", "b"])),
            ("b".to_owned(), list(&["c"])),
            ("c".to_owned(), list(&[])),
        ]);
        let mut all = Vec::new();
        closure("a", &needs, &mut all);
        assert_eq!(all, ["b", "c"]);
    }
}
