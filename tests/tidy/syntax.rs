//! Splits a parsed source into production code and test code, and collects the paths that code mentions.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::BTreeMap;
use syn::{
    Attribute, Field, FieldValue, Fields, File, ImplItem, Item, Macro, Meta, Stmt, TraitItem, Variant, Visibility,
    punctuated::Punctuated,
    visit::{self, Visit},
    visit_mut::{self, VisitMut},
};

/// The file without `#[cfg(test)]` and `#[test]` items, at every depth.
pub(crate) fn product(text: &str) -> syn::Result<File> {
    Ok(split(text)?.0)
}

/// The file without test code, and the tokens of the test code.
pub(crate) fn split(text: &str) -> syn::Result<(File, TokenStream)> {
    let mut file = syn::parse_file(text)?;
    let mut tests = WithoutTests::default();
    if only_in_tests(&file.attrs) {
        file.items.drain(..).for_each(|item| item.to_tokens(&mut tests.removed));
    }
    tests.visit_file_mut(&mut file);
    Ok((file, tests.removed))
}

/// Whether a conditional attribute leaves the item out of a build without tests.
pub(crate) fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let is_cfg_off = || {
            let predicate = attribute.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated);
            predicate.is_ok_and(|predicate| predicate.first().is_some_and(|meta| value(meta) == Some(false)))
        };
        (path.is_ident("cfg") && is_cfg_off()) || path.segments.last().is_some_and(|segment| segment.ident == "test")
    })
}

/// Value of a `cfg` predicate if `test` is false and all others are unknown.
fn value(meta: &Meta) -> Option<bool> {
    let Meta::List(list) = meta else { return meta.path().is_ident("test").then_some(false) };
    let inner = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated).ok()?;
    let values: Vec<_> = inner.iter().map(value).collect();
    let all_are = |expected| values.iter().all(|value| *value == Some(expected));
    match list.path.get_ident()?.to_string().as_str() {
        "not" => values.first().copied().flatten().map(|value| !value),
        "all" if values.contains(&Some(false)) => Some(false),
        "all" if all_are(true) => Some(true),
        "any" if values.contains(&Some(true)) => Some(true),
        "any" if all_are(false) => Some(false),
        _ => None,
    }
}

#[derive(Default)]
struct WithoutTests {
    removed: TokenStream,
}

impl WithoutTests {
    /// Whether this is production code; collects it otherwise.
    fn keeps(&mut self, piece: &impl ToTokens, attributes: &[Attribute]) -> bool {
        let keeps = !only_in_tests(attributes);
        if !keeps {
            piece.to_tokens(&mut self.removed);
        }
        keeps
    }
}

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut File) {
        file.items.retain(|item| self.keeps(item, item_attributes(item)));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| self.keeps(item, item_attributes(item)));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| {
            let attributes: &[Attribute] = match item {
                ImplItem::Const(item) => &item.attrs,
                ImplItem::Fn(item) => &item.attrs,
                ImplItem::Type(item) => &item.attrs,
                ImplItem::Macro(item) => &item.attrs,
                _ => &[],
            };
            self.keeps(item, attributes)
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_item_trait_mut(&mut self, definition: &mut syn::ItemTrait) {
        definition.items.retain(|item| {
            let attributes: &[Attribute] = match item {
                TraitItem::Const(item) => &item.attrs,
                TraitItem::Fn(item) => &item.attrs,
                TraitItem::Type(item) => &item.attrs,
                TraitItem::Macro(item) => &item.attrs,
                _ => &[],
            };
            self.keeps(item, attributes)
        });
        visit_mut::visit_item_trait_mut(self, definition);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|statement| {
            let attributes: &[Attribute] = match statement {
                Stmt::Local(local) => &local.attrs,
                Stmt::Item(item) => item_attributes(item),
                Stmt::Expr(expression, _) => expression_attributes(expression),
                Stmt::Macro(call) => &call.attrs,
            };
            self.keeps(statement, attributes)
        });
        visit_mut::visit_block_mut(self, block);
    }

    fn visit_fields_mut(&mut self, fields: &mut Fields) {
        let kept = |field: &Field| self.keeps(field, &field.attrs);
        match fields {
            Fields::Named(fields) => fields.named = std::mem::take(&mut fields.named).into_iter().filter(kept).collect(),
            Fields::Unnamed(fields) => fields.unnamed = std::mem::take(&mut fields.unnamed).into_iter().filter(kept).collect(),
            Fields::Unit => {}
        }
        visit_mut::visit_fields_mut(self, fields);
    }

    fn visit_item_enum_mut(&mut self, definition: &mut syn::ItemEnum) {
        let kept = |variant: &Variant| self.keeps(variant, &variant.attrs);
        definition.variants = std::mem::take(&mut definition.variants).into_iter().filter(kept).collect();
        visit_mut::visit_item_enum_mut(self, definition);
    }

    fn visit_expr_match_mut(&mut self, expression: &mut syn::ExprMatch) {
        expression.arms.retain(|arm| self.keeps(arm, &arm.attrs));
        visit_mut::visit_expr_match_mut(self, expression);
    }

    fn visit_expr_struct_mut(&mut self, expression: &mut syn::ExprStruct) {
        let kept = |field: &FieldValue| self.keeps(field, &field.attrs);
        expression.fields = std::mem::take(&mut expression.fields).into_iter().filter(kept).collect();
        visit_mut::visit_expr_struct_mut(self, expression);
    }
}

pub(crate) fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn expression_attributes(expression: &syn::Expr) -> &[Attribute] {
    match expression {
        syn::Expr::Assign(it) => &it.attrs,
        syn::Expr::Block(it) => &it.attrs,
        syn::Expr::Call(it) => &it.attrs,
        syn::Expr::ForLoop(it) => &it.attrs,
        syn::Expr::If(it) => &it.attrs,
        syn::Expr::Loop(it) => &it.attrs,
        syn::Expr::Match(it) => &it.attrs,
        syn::Expr::MethodCall(it) => &it.attrs,
        syn::Expr::Return(it) => &it.attrs,
        syn::Expr::While(it) => &it.attrs,
        _ => &[],
    }
}

/// A path that the code mentions: `["crate", "overlay", "Peer"]`.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In an expression, type, pattern, attribute, or the tokens of a macro call.
    Path,
    /// `path(…)`.
    Call,
    /// `path!(…)`.
    Macro,
    /// `….name(…)`.
    Method,
    /// `use path as name`. `public` if others can use it through this module.
    Import { name: String, public: bool },
    /// `use path::*`.
    Glob,
}

impl Mention {
    pub(crate) fn text(&self) -> String {
        self.path.join("::")
    }
}

/// Every path that these items mention, except in the bodies of inline modules.
pub(crate) fn mentions(items: &[Item]) -> Vec<Mention> {
    let mut collector = Collector::default();
    for item in items {
        collector.visit_item(item);
    }
    collector.found
}

/// Every path that the file mentions. Imported names are expanded: after `use std::env`, `env::var` is
/// `std::env::var`.
pub(crate) fn full_mentions(file: &File) -> Vec<Mention> {
    let mut collector = Collector { into_modules: true, ..Collector::default() };
    collector.visit_file(file);
    let imports: BTreeMap<String, Vec<String>> = collector
        .found
        .iter()
        .filter_map(|mention| match &mention.kind {
            Kind::Import { name, .. } => Some((name.clone(), mention.path.clone())),
            _ => None,
        })
        .collect();
    for mention in collector.found.iter_mut().filter(|mention| matches!(mention.kind, Kind::Path | Kind::Call)) {
        if let Some(import) = mention.path.first().and_then(|first| imports.get(first)) {
            mention.path.splice(..1, import.iter().cloned());
        }
    }
    collector.found
}

#[derive(Default)]
struct Collector {
    found: Vec<Mention>,
    into_modules: bool,
}

impl Collector {
    fn add(&mut self, path: Vec<String>, span: Span, kind: Kind) {
        self.found.push(Mention { path, line: span.start().line, kind });
    }

    fn add_path(&mut self, path: &syn::Path, kind: Kind) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.add(segments, first.ident.span(), kind);
        }
        visit::visit_path(self, path);
    }

    fn import(&mut self, tree: &syn::UseTree, prefix: &[String], public: bool) {
        let with = |name: &syn::Ident| {
            // `use a::{self}` names `a`.
            let own = (name != "self" || prefix.is_empty()).then(|| name.to_string());
            prefix.iter().cloned().chain(own).collect::<Vec<_>>()
        };
        let mut add = |path: Vec<String>, name: Option<String>, span: Span| {
            let kind = name.map_or(Kind::Glob, |name| Kind::Import { name, public });
            self.found.push(Mention { path, line: span.start().line, kind });
        };
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), public),
            syn::UseTree::Name(name) => {
                let path = with(&name.ident);
                let bound = path.last().cloned();
                add(path, bound, name.ident.span());
            }
            syn::UseTree::Rename(rename) => add(with(&rename.ident), Some(rename.rename.to_string()), rename.ident.span()),
            syn::UseTree::Glob(glob) => add(prefix.to_vec(), None, glob.star_token.spans[0]),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, prefix, public)),
        }
    }

    /// Macros are not expanded: every sequence of names joined by `::` counts as a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct =
            |index: usize, mark: char| matches!(tokens.get(index), Some(TokenTree::Punct(punct)) if punct.as_char() == mark);
        let joined = |index: usize| punct(index, ':') && punct(index + 1, ':');
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let is_member = at > 0 && punct(at - 1, '.') && !(at > 1 && punct(at - 2, '.'));
                    let goes_on = at > 1 && joined(at - 2);
                    let mut path = vec![first.to_string()];
                    while joined(at + 1) {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    let is_group = |index: usize| matches!(tokens.get(index), Some(TokenTree::Group(_)));
                    let is_call = is_group(at + 1);
                    let asks_whether_terminal = is_call
                        && punct(at + 2, '.')
                        && matches!(tokens.get(at + 3), Some(TokenTree::Ident(name)) if name == "is_terminal");
                    let kind = match () {
                        () if is_member && is_call => Kind::Method,
                        () if punct(at + 1, '!') && is_group(at + 2) => Kind::Macro,
                        () if is_call => Kind::Call,
                        () => Kind::Path,
                    };
                    if !goes_on && !asks_whether_terminal && (kind == Kind::Method || !is_member) {
                        self.add(path, first.span(), kind);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if self.into_modules {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_path(path, Kind::Path);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        match &*call.func {
            syn::Expr::Path(function) if function.qself.is_none() => self.add_path(&function.path, Kind::Call),
            function => self.visit_expr(function),
        }
        call.args.iter().for_each(|argument| self.visit_expr(argument));
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.add(vec![call.method.to_string()], call.method.span(), Kind::Method);
        // `stdout().is_terminal()` does not write.
        if call.method != "is_terminal" {
            visit::visit_expr_method_call(self, call);
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.add_path(&call.path, Kind::Macro);
        self.tokens(call.tokens.clone());
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.visit_macro(&item.mac);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
        if let Meta::NameValue(pair) = &attribute.meta {
            self.visit_expr(&pair.value);
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
