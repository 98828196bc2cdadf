//! Which file of `src/` imports from which, with re-exports followed to the file that defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The imports of each file, by path.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// A module's path from the crate's root.
type Module = Vec<String>;

struct File {
    module: Module,
    /// The child modules that it declares.
    children: BTreeSet<String>,
    /// The full paths that it imports or names.
    imports: Vec<Module>,
    /// The names that it re-exports, with their full paths.
    exports: BTreeMap<String, Module>,
}

/// Returns the imports between `sources`: the path of each file, from the repository's root, and its text.
pub(crate) fn imports(sources: &[(PathBuf, String)]) -> Imports {
    let files: BTreeMap<&Path, File> =
        sources.iter().map(|(path, text)| (path.as_path(), read(path, text))).collect();
    let modules: BTreeMap<&Module, &Path> = files.iter().map(|(path, file)| (&file.module, *path)).collect();
    let mut found = Imports::new();
    for (path, file) in &files {
        let targets = file.imports.iter().filter_map(|import| resolve(import, &modules, &files, 0));
        let targets = targets.filter(|target| target != path).map(Path::to_owned);
        found.insert(path.to_path_buf(), targets.collect());
    }
    found
}

/// Returns the files that import one another, in groups: the strongly connected components of more than one file.
pub(crate) fn cycles(imports: &Imports) -> Vec<BTreeSet<PathBuf>> {
    let reachable = |from: &PathBuf| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&PathBuf> = imports[from].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file.clone()) {
                next.extend(&imports[file]);
            }
        }
        seen
    };
    let reached: BTreeMap<&PathBuf, _> = imports.keys().map(|file| (file, reachable(file))).collect();
    let mut groups = Vec::new();
    let mut grouped = BTreeSet::new();
    for (file, others) in &reached {
        if others.contains(*file) && !grouped.contains(*file) {
            let group: BTreeSet<_> =
                others.iter().filter(|other| reached[other].contains(*file)).cloned().collect();
            grouped.extend(group.iter().cloned());
            groups.push(group);
        }
    }
    groups
}

/// Returns the file that defines the item at `path`.
fn resolve<'f>(
    path: &Module,
    modules: &BTreeMap<&Module, &'f Path>,
    files: &BTreeMap<&'f Path, File>,
    depth: usize,
) -> Option<&'f Path> {
    assert!(depth < 20, "a re-export leads to itself: {path:?}");
    // The longest beginning of the path that is a module.
    let length = (1..=path.len()).rev().find(|&length| modules.contains_key(&path[..length].to_vec()))?;
    let file = modules[&path[..length].to_vec()];
    let Some(name) = path.get(length) else { return Some(file) };
    match files[file].exports.get(name) {
        Some(target) => {
            let target: Module = target.iter().chain(&path[length + 1..]).cloned().collect();
            resolve(&target, modules, files, depth + 1)
        }
        None => Some(file),
    }
}

fn read(path: &Path, text: &str) -> File {
    let module: Module = std::iter::once("crate".to_owned())
        .chain(
            path.with_extension("")
                .components()
                .skip(1)
                .map(|part| part.as_os_str().to_str().unwrap().to_owned()),
        )
        .filter(|part| part != "lib" && part != "main")
        .collect();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code = code.replace("pub(in crate::", "pub(in ");
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let is_mod = |line: &str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    let children: BTreeSet<String> = code.lines().filter_map(is_mod).collect();
    let mut file = File { module, children, imports: Vec::new(), exports: BTreeMap::new() };
    let mut rest = code.as_str();
    let mut without_uses = String::new();
    while let Some(at) = rest.find("use ") {
        let line_start = rest[..at].rfind('\n').map_or(0, |at| at + 1);
        let visibility = rest[line_start..at].trim().to_owned();
        let is_use = visibility.is_empty() || visibility.starts_with("pub");
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        if is_use {
            without_uses.push_str(&rest[..line_start]);
            for (name, path) in expand(&rest[at + 4..end]) {
                let Some(path) = file.absolute(&path) else { continue };
                if visibility.is_empty() {
                    file.imports.push(path);
                } else {
                    file.exports.insert(name, path);
                }
            }
            rest = &rest[end..];
        } else {
            without_uses.push_str(&rest[..at + 4]);
            rest = &rest[at + 4..];
        }
    }
    without_uses.push_str(rest);
    for start in ["crate::", "super::"] {
        for (at, _) in without_uses.match_indices(start) {
            let before = without_uses[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let end = without_uses[at..].find(|c| !is_path(c)).map_or(without_uses.len(), |end| at + end);
            let path: Module = without_uses[at..end].split("::").map(str::to_owned).collect();
            if let Some(path) = file.absolute(&path) {
                file.imports.push(path);
            }
        }
    }
    file
}

impl File {
    /// Returns `path` as a path from the crate's root, or `None` if it does not begin with `crate`, `self`, `super` or
    /// a child module.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let mut base = self.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => base.truncate(1),
            "self" => {}
            "super" => {
                base.pop();
                while let Some("super") = rest.get(1).map(String::as_str) {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child if self.children.contains(child) => return Some([base, path.to_vec()].concat()),
            _ => return None,
        }
        base.extend(rest[1..].iter().filter(|part| !part.is_empty()).cloned());
        Some(base)
    }
}

/// Expands a use tree to the names it brings in, each with its path.
fn expand(tree: &str) -> Vec<(String, Module)> {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let prefix: Module = tree[..open]
            .split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let inner = &tree[open + 1..tree.rfind('}').unwrap()];
        let mut parts = Vec::new();
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&inner[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&inner[start..]);
        let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
        return parts
            .flat_map(expand)
            .map(|(name, path)| {
                let path = if path == ["self"] { vec![] } else { path };
                let full: Module = prefix.iter().cloned().chain(path).collect();
                let name = if name == "self" { full.last().unwrap().clone() } else { name };
                (name, full)
            })
            .collect();
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
    let path: Module = path.split("::").map(|part| part.trim().to_owned()).collect();
    let name = alias.map_or_else(|| path.last().unwrap().clone(), |alias| alias.trim().to_owned());
    vec![(name, path)]
}
