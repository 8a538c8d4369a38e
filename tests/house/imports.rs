//! Finds which source file uses items of which other file.
//!
//! A module declaration is no import. A re-export is followed to the file that defines the item.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{ImplItem, Item};

/// Longest chain of re-exports.
const RE_EXPORTS_MAX: usize = 8;

/// A module's path from the crate's root.
type ModulePath = Vec<String>;

/// A name that a module imports.
#[derive(Debug, Clone)]
struct Import {
    /// The path as written, without an alias.
    path: Vec<String>,
    /// The name in the module.
    name: String,
}

#[derive(Debug, Default)]
struct Module {
    /// The index of its file.
    file: usize,
    /// The items that it defines, without child modules.
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// The paths of glob imports.
    globs: Vec<Vec<String>>,
    /// Each path with two or more segments in its code, and each import.
    paths: BTreeSet<Vec<String>>,
    /// Types with inherent implementations in it, as written, with the names of the functions.
    inherent: BTreeMap<Vec<String>, BTreeSet<String>>,
    /// The names of functions that it calls on `self` or `Self`.
    own_calls: BTreeSet<String>,
}

/// A crate's sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: Vec<PathBuf>,
    modules: BTreeMap<ModulePath, Module>,
    /// The number of fields of each struct, by file and name.
    structs: BTreeMap<(PathBuf, String), usize>,
}

/// Uses of one file's items by another file: user, used file, and the paths as written.
pub(super) type Uses = BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// An item that this file defines.
    File(usize),
    /// A module.
    Module(ModulePath),
    /// Something outside the crate, or a local name.
    Elsewhere,
}

impl Sources {
    /// Reads a crate from the folder of its `lib.rs`.
    pub(super) fn read(folder: &Path) -> Self {
        let mut sources = Self::default();
        sources.read_file(folder, &folder.join("lib.rs"), folder, Vec::new());
        sources
    }

    /// Reads a module's file; its child modules are in `children`.
    fn read_file(&mut self, root: &Path, path: &Path, children: &Path, module: ModulePath) {
        let text = fs::read_to_string(path).unwrap();
        let parsed = syn::parse_file(&text).unwrap();
        self.files.push(path.strip_prefix(root).unwrap().to_owned());
        self.read_items(root, &parsed.items, children, module, self.files.len() - 1);
    }

    fn read_items(&mut self, root: &Path, items: &[Item], children: &Path, path: ModulePath, file: usize) {
        let mut module = Module { file, ..Module::default() };
        for item in items {
            match item {
                Item::Struct(found) => {
                    let key = (self.files[file].clone(), found.ident.to_string());
                    self.structs.insert(key, found.fields.len());
                    module.items.insert(found.ident.to_string());
                }
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let (path, folder) = ([&path[..], std::slice::from_ref(&name)].concat(), children.join(&name));
                    if let Some((_, items)) = &child.content {
                        self.read_items(root, items, &folder, path, file);
                    } else {
                        let flat = children.join(format!("{name}.rs"));
                        let own = if flat.exists() { flat } else { folder.join("mod.rs") };
                        self.read_file(root, &own, &folder, path);
                    }
                    continue;
                }
                Item::Impl(implementation) if implementation.trait_.is_none() => {
                    if let syn::Type::Path(of) = &*implementation.self_ty {
                        let of = of.path.segments.iter().map(|part| part.ident.to_string()).collect();
                        let functions = implementation.items.iter().filter_map(|item| match item {
                            ImplItem::Fn(function) => Some(function.sig.ident.to_string()),
                            _ => None,
                        });
                        module.inherent.entry(of).or_default().extend(functions);
                    }
                }
                Item::Macro(call) => {
                    module.items.extend(call.ident.iter().map(ToString::to_string));
                    module.items.extend(idents(call.mac.tokens.clone()));
                }
                other => module.items.extend(name_of(other)),
            }
            walk(item.to_token_stream(), &mut module);
        }
        self.modules.insert(path, module);
    }

    /// Returns each struct with more than so many fields, as `file name`.
    pub(super) fn structs_over(&self, fields_max: usize) -> BTreeSet<String> {
        let large = self.structs.iter().filter(|(_, fields)| **fields > fields_max);
        large.map(|((file, name), _)| format!("{} {name}", file.display())).collect()
    }

    /// Returns what each file uses of others.
    pub(super) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (at, module) in &self.modules {
            for path in &module.paths {
                let target = match self.resolve(at, path, 0) {
                    Target::File(file) => file,
                    // A glob uses the module's own file. A module that is only named is used where its items are named.
                    Target::Module(found) if path.last().is_some_and(|last| last == "*") => self.modules[&found].file,
                    Target::Module(_) | Target::Elsewhere => continue,
                };
                if target != module.file {
                    let key = (self.files[module.file].clone(), self.files[target].clone());
                    uses.entry(key).or_default().insert(path.join("::"));
                }
            }
        }
        self.add_own_calls(&mut uses);
        uses
    }

    /// Adds the calls between the files that implement one type: no import shows them.
    fn add_own_calls(&self, uses: &mut Uses) {
        // The functions of each type (its file and name), by the file that contains them.
        let mut types: BTreeMap<(usize, String), BTreeMap<usize, BTreeSet<String>>> = BTreeMap::new();
        for (at, module) in &self.modules {
            for (path, functions) in &module.inherent {
                let name = path.last().cloned().unwrap_or_default();
                if let Target::File(file) = self.resolve(at, path, 0) {
                    types.entry((file, name)).or_default().entry(module.file).or_default().extend(functions.clone());
                }
            }
        }
        for ((defined_in, name), files) in &types {
            for module in self.modules.values() {
                let own = files.get(&module.file);
                if own.is_none() && module.file != *defined_in {
                    continue;
                }
                let called = module.own_calls.iter().filter(|call| own.is_none_or(|own| !own.contains(*call)));
                for call in called {
                    let of = files.iter().find(|(file, functions)| **file != module.file && functions.contains(call));
                    if let Some((file, _)) = of {
                        let key = (self.files[module.file].clone(), self.files[*file].clone());
                        uses.entry(key).or_default().insert(format!("{name}::{call}()"));
                    }
                }
            }
        }
    }

    /// Finds the file that defines what a path names in a module.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Target {
        assert!(depth <= RE_EXPORTS_MAX, "re-exports of {path:?} in {at:?} lead in a ring");
        let Some((first, rest)) = path.split_first() else { return Target::Module(at.to_vec()) };
        match first.as_str() {
            "crate" => self.descend(&[], rest, depth),
            "self" => self.descend(at, rest, depth),
            "super" => self.descend(&at[..at.len().saturating_sub(1)], rest, depth),
            _ if self.has(at, first) => self.descend(at, path, depth),
            _ => Target::Elsewhere,
        }
    }

    /// Tells whether a module defines or imports a name, apart from globs.
    fn has(&self, at: &[String], name: &String) -> bool {
        let module = &self.modules[at];
        let child = [at, std::slice::from_ref(name)].concat();
        module.items.contains(name)
            || self.modules.contains_key(&child)
            || module.imports.iter().any(|import| import.name == *name)
    }

    /// Follows a path from a module down.
    fn descend(&self, at: &[String], path: &[String], depth: usize) -> Target {
        let Some((first, rest)) = path.split_first() else { return Target::Module(at.to_vec()) };
        if first == "super" {
            return self.descend(&at[..at.len().saturating_sub(1)], rest, depth);
        }
        if first == "*" {
            return Target::Module(at.to_vec());
        }
        let module = &self.modules[at];
        let child = [at, std::slice::from_ref(first)].concat();
        if self.modules.contains_key(&child) {
            return self.descend(&child, rest, depth);
        }
        if module.items.contains(first) {
            return Target::File(module.file);
        }
        if let Some(import) = module.imports.iter().find(|import| import.name == *first) {
            // An import can't lead to itself: `use name::name` is another crate's.
            if import.path.first() == Some(first) {
                return Target::Elsewhere;
            }
            return match self.resolve(at, &import.path, depth + 1) {
                Target::Module(found) => self.descend(&found, rest, depth + 1),
                found => found,
            };
        }
        for glob in &module.globs {
            if let Target::Module(found) = self.resolve(at, glob, depth + 1)
                && found != at
            {
                match self.descend(&found, path, depth + 1) {
                    Target::Elsewhere => {}
                    found => return found,
                }
            }
        }
        Target::Elsewhere
    }
}

/// Returns the name that an item defines.
fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn idents(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// Collects the paths in code, also in macro calls and in imports inside functions.
fn walk(tokens: TokenStream, module: &mut Module) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut place = 0;
    while place < tokens.len() {
        match &tokens[place] {
            TokenTree::Group(group) => {
                walk(group.stream(), module);
                place += 1;
            }
            TokenTree::Ident(ident) if ident == "use" => place = import(&tokens, place + 1, &[], module),
            TokenTree::Ident(ident) => {
                let mut path = vec![ident.to_string()];
                place += 1;
                if let [TokenTree::Punct(dot), TokenTree::Ident(name), TokenTree::Group(arguments), ..] =
                    &tokens[place..]
                    && (path[0] == "self", dot.as_char(), arguments.delimiter()) == (true, '.', Delimiter::Parenthesis)
                {
                    module.own_calls.insert(name.to_string());
                }
                while is_colon(tokens.get(place)) && is_colon(tokens.get(place + 1)) {
                    let Some(TokenTree::Ident(next)) = tokens.get(place + 2) else { break };
                    path.push(next.to_string());
                    place += 3;
                }
                if let [own, name] = path.as_slice()
                    && own == "Self"
                {
                    module.own_calls.insert(name.clone());
                } else if path.len() > 1 {
                    module.paths.insert(path);
                }
            }
            _ => place += 1,
        }
    }
}

/// Collects one branch of an import. Returns the index behind it.
fn import(tokens: &[TokenTree], mut place: usize, before: &[String], module: &mut Module) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(place) {
            Some(TokenTree::Ident(alias)) if alias == "as" => {
                let Some(TokenTree::Ident(name)) = tokens.get(place + 1) else { return place + 1 };
                end(path, name.to_string(), module);
                return place + 2;
            }
            Some(TokenTree::Ident(ident)) => {
                path.push(ident.to_string());
                place += 1;
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => place += 1,
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                module.paths.insert([&path[..], &["*".to_owned()]].concat());
                module.globs.push(path);
                return place + 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let mut at = 0;
                while at < inner.len() {
                    at = import(&inner, at, &path, module) + 1;
                }
                return place + 1;
            }
            _ => {
                let last = path.last().cloned().unwrap_or_default();
                if last == "self" {
                    path.pop();
                }
                let name = path.last().cloned().unwrap_or_default();
                end(path, name, module);
                return place;
            }
        }
    }
}

fn end(path: Vec<String>, name: String, module: &mut Module) {
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        return end(path[..path.len() - 1].to_vec(), name, module);
    }
    module.paths.insert(path.clone());
    module.imports.push(Import { path, name });
}

/// Returns the groups of files that import each other in a cycle.
pub(super) fn rings(uses: &Uses) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = open.pop() {
            for (_, to) in uses.keys().filter(|(user, _)| *user == file) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<_, _> = uses.keys().map(|(from, _)| (from.clone(), reached(from))).collect();
    let mut found: Vec<BTreeSet<PathBuf>> = Vec::new();
    for (file, seen) in all.iter().filter(|(file, seen)| seen.contains(*file)) {
        let ring: BTreeSet<_> =
            seen.iter().filter(|other| all.get(*other).is_some_and(|back| back.contains(file))).cloned().collect();
        if !found.contains(&ring) {
            found.push(ring);
        }
    }
    found
}
