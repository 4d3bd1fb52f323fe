//! From source text to modules: what each declares, imports, and mentions. Nothing is judged here.
//!
//! Macro bodies are opaque to a parser, so they are read twice: as expressions, statements or items where they are such,
//! and token by token for everything that looks like a path.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::layers::{BINARY, SECRET_TYPE};

/// One file, named relative to the repository.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// A path as it is written, not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    pub segments: Vec<String>,
    /// Begins with `::`, so it names an external crate.
    pub is_rooted: bool,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A path in an expression, type, pattern, bound, attribute or macro.
    Path(Written),
    /// The name of a macro that is called: `env!` is no read of the environment.
    MacroName(Written),
    /// One name of a `use`.
    Import(Written),
    /// `use path::*`.
    Glob(Written),
    /// The type behind a return value, a field or an alias that others can see.
    Surface(Written),
    /// A method call, or any lone name inside a macro.
    Method(String),
    /// `async`, `.await`.
    Async,
    /// `#[path = "…"]` or `include!`: code from a place the map does not know.
    ForeignCode,
    /// `::$name` in a macro's definition: a path that stands nowhere as a whole.
    BuiltPath,
    /// `env` in an attribute of clap.
    EnvironmentAttribute,
    /// `impl Trait for SecretValue`.
    SecretTrait(String),
    /// A derive on it.
    SecretDerive(String),
    /// A method of `SecretValue` that others can call and that returns more than a size or a yes.
    SecretAccessor(String),
    /// `impl Trait<SecretValue> for …`.
    SecretConversion(String),
    /// `mod x;` with a file of its own.
    ModuleFile(String),
}

#[derive(Clone, Debug)]
pub struct Mention {
    pub what: What,
    pub line: usize,
    /// Stands below `#[cfg(test)]`.
    pub is_test: bool,
    /// Stands in a `macro_rules!`: it may be expanded anywhere.
    pub is_macro_body: bool,
}

#[derive(Default, Debug)]
pub struct Module {
    /// `["crate", "engine", "plan"]`, or `["main"]` for the binary.
    pub path: Vec<String>,
    pub file: String,
    pub line: usize,
    pub is_test: bool,
    /// Every item that is no module.
    pub items: BTreeSet<String>,
    pub functions: BTreeSet<String>,
    /// Name → what it stands for: `use`, `extern crate`, `type`.
    pub aliases: BTreeMap<String, Vec<Written>>,
    pub globs: Vec<Written>,
    pub mentions: Vec<Mention>,
}

#[derive(Default)]
pub struct Crate {
    pub modules: BTreeMap<Vec<String>, Module>,
}

impl Crate {
    /// Parses all sources; one that does not parse is a failure of the test.
    pub fn parse(sources: &[Source]) -> Self {
        let mut parsed = Self::default();
        let mut test_modules = BTreeSet::new();
        for source in sources {
            let file =
                syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}:{}: {error}", source.path, error.span().start().line));
            if file.attrs.iter().any(is_cfg_test) {
                test_modules.insert(module_path(&source.path));
            }
            let mut reader = Reader::new(&mut parsed, &mut test_modules, source);
            reader.visit_file(&file);
        }
        parsed.mark_tests(&test_modules);
        parsed
    }

    /// A module is test code only where its declaration, or one above it, says `#[cfg(test)]`; a file name proves nothing.
    fn mark_tests(&mut self, test_modules: &BTreeSet<Vec<String>>) {
        for (path, module) in &mut self.modules {
            module.is_test = (1..=path.len()).any(|length| test_modules.contains(&path[..length]));
            if module.is_test {
                module.mentions.iter_mut().for_each(|mention| mention.is_test = true);
            }
        }
    }
}

/// `src/engine/plan.rs` → `["crate", "engine", "plan"]`.
pub fn module_path(file: &str) -> Vec<String> {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs");
    if inside == "main" {
        return vec![BINARY.to_owned()];
    }
    let mut path = vec!["crate".to_owned()];
    path.extend(inside.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
    if matches!(path.last().map(String::as_str), Some("mod" | "lib")) {
        path.pop();
    }
    path
}

struct Reader<'a> {
    parsed: &'a mut Crate,
    test_modules: &'a mut BTreeSet<Vec<String>>,
    file: String,
    here: Vec<String>,
    test_depth: usize,
    macro_depth: usize,
}

impl<'a> Reader<'a> {
    fn new(parsed: &'a mut Crate, test_modules: &'a mut BTreeSet<Vec<String>>, source: &Source) -> Self {
        let here = module_path(&source.path);
        let mut reader = Self { parsed, test_modules, file: source.path.clone(), here: here.clone(), test_depth: 0, macro_depth: 0 };
        reader.open(here, 1);
        reader
    }

    fn open(&mut self, path: Vec<String>, line: usize) {
        self.here.clone_from(&path);
        let module = self.parsed.modules.entry(path.clone()).or_default();
        module.path = path;
        module.file.clone_from(&self.file);
        module.line = line;
    }

    fn module(&mut self) -> &mut Module {
        self.parsed.modules.get_mut(&self.here).expect("the module was opened before its content is read")
    }

    fn mention(&mut self, what: What, span: Span) {
        let (is_test, is_macro_body) = (self.test_depth > 0, self.macro_depth > 0);
        self.module().mentions.push(Mention { what, line: span.start().line, is_test, is_macro_body });
    }

    fn declare(&mut self, name: &syn::Ident) {
        let name = name.to_string();
        self.module().items.insert(name);
    }

    fn alias(&mut self, name: String, target: Written) {
        self.module().aliases.entry(name).or_default().push(target);
    }

    /// Reads `use a::{b, c as d, e::*}` into single names.
    fn read_use(&mut self, tree: &syn::UseTree, prefix: &Written) {
        match tree {
            syn::UseTree::Path(path) => self.read_use(&path.tree, &prefix.then(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.read_use(item, prefix)),
            syn::UseTree::Glob(glob) => {
                self.module().globs.push(prefix.clone());
                self.mention(What::Glob(prefix.clone()), glob.star_token.span());
            }
            syn::UseTree::Name(name) => self.import(prefix, &name.ident, &name.ident),
            syn::UseTree::Rename(rename) => self.import(prefix, &rename.ident, &rename.rename),
        }
    }

    fn import(&mut self, prefix: &Written, name: &syn::Ident, visible_as: &syn::Ident) {
        let (target, visible_as) = if name == "self" {
            let last = prefix.segments.last().cloned().unwrap_or_default();
            (prefix.clone(), if visible_as == "self" { last } else { visible_as.to_string() })
        } else {
            (prefix.then(name), visible_as.to_string())
        };
        self.mention(What::Import(target.clone()), name.span());
        if visible_as != "_" {
            self.alias(visible_as, target);
        }
    }

    /// Notes the types behind something that other modules can see.
    fn read_surface(&mut self, visibility: &syn::Visibility, ty: &syn::Type) {
        if is_seen(visibility) {
            self.mention_surface(TypePaths::of(ty));
        }
    }

    /// Arguments too: a callback would be handed what the function has.
    fn read_signature(&mut self, visibility: &syn::Visibility, signature: &syn::Signature) {
        if is_seen(visibility) {
            let mut types = TypePaths::default();
            types.visit_signature(signature);
            self.mention_surface(types);
        }
    }

    fn mention_surface(&mut self, types: TypePaths) {
        for (path, span) in types.found {
            self.mention(What::Surface(path), span);
        }
    }

    /// Reads a macro's tokens as code where they are code.
    fn read_as_code(&mut self, tokens: &TokenStream) {
        let as_expressions = Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated.parse2(tokens.clone());
        if let Ok(expressions) = as_expressions {
            expressions.iter().for_each(|expression| self.visit_expr(expression));
        } else if let Ok(statements) = syn::Block::parse_within.parse2(tokens.clone()) {
            for statement in &statements {
                self.visit_stmt(statement);
            }
        } else if let Ok(file) = syn::parse2::<syn::File>(tokens.clone()) {
            self.visit_file(&file);
        }
    }

    /// Reads tokens for everything that looks like a path, a `use`, or a method.
    fn read_tokens(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Group(group) => {
                    self.read_tokens(&group.stream());
                    at + 1
                }
                TokenTree::Ident(ident) if ident == "use" => self.read_use_tokens(&tokens, at),
                TokenTree::Ident(ident) if is_lifetime(&tokens, at) => {
                    let _ = ident;
                    at + 1
                }
                TokenTree::Ident(_) => self.read_path_tokens(&tokens, at),
                TokenTree::Punct(punct) if punct.as_char() == '$' && self.macro_depth > 0 && at >= 2 && is_separator(&tokens, at - 2) => {
                    self.mention(What::BuiltPath, punct.span());
                    at + 1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at + 1,
            };
        }
    }

    fn read_use_tokens(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let is_end = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
        let Some(length) = tokens[at..].iter().position(is_end) else { return at + 1 };
        let statement: TokenStream = tokens[at..=at + length].iter().cloned().collect();
        match syn::parse2::<syn::ItemUse>(statement) {
            Ok(item) => {
                self.visit_item_use(&item);
                at + length + 1
            }
            Err(_) => at + 1,
        }
    }

    /// Reads `a::b::c` from the name at `at`, and says where to go on.
    fn read_path_tokens(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let mut segments = vec![text_of(&tokens[at])];
        let mut next = at + 1;
        while is_separator(tokens, next) && matches!(tokens.get(next + 2), Some(TokenTree::Ident(_))) {
            segments.push(text_of(&tokens[next + 2]));
            next += 3;
        }
        let span = tokens[at].span();
        match segments.last().map(String::as_str) {
            Some("async" | "await") => self.mention(What::Async, span),
            Some(last) => self.mention(What::Method(last.to_owned()), span),
            None => {}
        }
        let is_method = at > 0 && matches!(&tokens[at - 1], TokenTree::Punct(punct) if punct.as_char() == '.');
        if !is_method {
            let is_rooted = at >= 2 && is_separator(tokens, at - 2);
            self.mention(What::Path(Written { segments, is_rooted }), span);
        }
        next
    }

    /// Text in an attribute may name code: `#[serde(with = "crate::x::y")]`.
    fn read_strings(&mut self, tokens: &TokenStream) {
        for token in tokens.clone() {
            match token {
                TokenTree::Group(group) => self.read_strings(&group.stream()),
                TokenTree::Literal(literal) => {
                    let span = literal.span();
                    let path =
                        syn::parse2::<syn::LitStr>(TokenTree::from(literal).into()).ok().and_then(|text| text.parse::<syn::Path>().ok());
                    if let Some(path) = path.filter(|path| path.segments.len() > 1) {
                        self.mention(What::Path(Written::from(&path)), span);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }

    fn read_trait(&mut self, path: &syn::Path, is_of_secret: bool) {
        let Some(last) = path.segments.last() else { return };
        let mut arguments = TypePaths::default();
        arguments.visit_path_arguments(&last.arguments);
        if is_of_secret {
            self.mention(What::SecretTrait(last.ident.to_string()), last.ident.span());
        } else if arguments.last_names().any(|name| name == SECRET_TYPE) {
            self.mention(What::SecretConversion(last.ident.to_string()), last.ident.span());
        }
    }

    /// Notes what others can call on a value, constructors, sizes and questions aside.
    fn read_accessors(&mut self, items: &[syn::ImplItem]) {
        let functions = items.iter().filter_map(|item| if let syn::ImplItem::Fn(function) = item { Some(function) } else { None });
        for function in functions.filter(|function| function.sig.receiver().is_some()) {
            let is_private = matches!(function.vis, syn::Visibility::Inherited);
            let syn::ReturnType::Type(_, ty) = &function.sig.output else { continue };
            let tells_nothing =
                matches!(&**ty, syn::Type::Path(path) if ["usize", "bool", "Self"].iter().any(|name| path.path.is_ident(name)));
            if !is_private && !tells_nothing {
                self.mention(What::SecretAccessor(function.sig.ident.to_string()), function.sig.ident.span());
            }
        }
    }

    fn read_secret_derives(&mut self, name: &syn::Ident, attributes: &[syn::Attribute]) {
        if name != SECRET_TYPE {
            return;
        }
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derives = attribute.parse_args_with(Punctuated::<syn::Path, syn::Token![,]>::parse_terminated);
            for path in derives.into_iter().flatten() {
                let last = path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
                self.mention(What::SecretDerive(last), path.span());
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let is_test = attributes_of(item).iter().any(is_cfg_test);
        self.test_depth += usize::from(is_test);
        visit::visit_item(self, item);
        self.test_depth -= usize::from(is_test);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        item.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
        let outer = self.here.clone();
        let mut inner = outer.clone();
        inner.push(item.ident.to_string());
        if item.attrs.iter().any(is_cfg_test) {
            self.test_modules.insert(inner.clone());
        }
        if let Some((_, items)) = &item.content {
            self.open(inner, item.ident.span().start().line);
            for item in items {
                self.visit_item(item);
            }
            self.here = outer;
        } else {
            self.mention(What::ModuleFile(item.ident.to_string()), item.ident.span());
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let start = Written { segments: Vec::new(), is_rooted: item.leading_colon.is_some() };
        self.read_use(&item.tree, &start);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let name = if item.ident == "self" { "crate".to_owned() } else { item.ident.to_string() };
        let target = Written { is_rooted: name != "crate", segments: vec![name] };
        self.mention(What::Import(target.clone()), item.ident.span());
        let visible_as = item.rename.as_ref().map_or_else(|| item.ident.to_string(), |(_, rename)| rename.to_string());
        self.alias(visible_as, target);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if let syn::Type::Path(path) = &*item.ty
            && path.qself.is_none()
        {
            self.alias(item.ident.to_string(), Written::from(&path.path));
        }
        self.declare(&item.ident);
        self.read_surface(&item.vis, &item.ty);
        visit::visit_item_type(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.declare(&item.sig.ident);
        let name = item.sig.ident.to_string();
        self.module().functions.insert(name);
        self.read_signature(&item.vis, &item.sig);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let is_test = item.attrs.iter().any(is_cfg_test);
        self.test_depth += usize::from(is_test);
        self.read_signature(&item.vis, &item.sig);
        visit::visit_impl_item_fn(self, item);
        self.test_depth -= usize::from(is_test);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.declare(&item.ident);
        self.read_secret_derives(&item.ident, &item.attrs);
        visit::visit_item_struct(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.read_surface(&field.vis, &field.ty);
        visit::visit_field(self, field);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.declare(&item.ident);
        self.read_secret_derives(&item.ident, &item.attrs);
        item.variants.iter().flat_map(|variant| &variant.fields).for_each(|field| self.read_surface(&item.vis, &field.ty));
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.declare(&item.ident);
        for function in item.items.iter().filter_map(|item| if let syn::TraitItem::Fn(function) = item { Some(function) } else { None }) {
            self.read_signature(&item.vis, &function.sig);
        }
        visit::visit_item_trait(self, item);
    }

    /// Whoever knows the trait can name the type behind it.
    fn visit_impl_item_type(&mut self, item: &'ast syn::ImplItemType) {
        self.mention_surface(TypePaths::of(&item.ty));
        visit::visit_impl_item_type(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.declare(&item.ident);
        self.read_surface(&item.vis, &item.ty);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.declare(&item.ident);
        self.read_surface(&item.vis, &item.ty);
        visit::visit_item_static(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = TypePaths::of(&item.self_ty);
        let is_of_secret = of.last_names().any(|name| name == SECRET_TYPE);
        match &item.trait_ {
            Some((_, path, _)) => self.read_trait(path, is_of_secret),
            None if is_of_secret => self.read_accessors(&item.items),
            None => {}
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        let is_definition = item.mac.path.is_ident("macro_rules");
        if let Some(name) = &item.ident {
            self.declare(name);
        }
        self.macro_depth += usize::from(is_definition);
        visit::visit_item_macro(self, item);
        self.macro_depth -= usize::from(is_definition);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        self.mention(What::MacroName(Written::from(&call.path)), call.path.span());
        if name == "include" {
            self.mention(What::ForeignCode, call.path.span());
        }
        self.read_as_code(&call.tokens);
        self.read_tokens(&call.tokens);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let path = attribute.path();
        self.mention(What::Path(Written::from(path)), path.span());
        if path.is_ident("path") || (path.is_ident("cfg_attr") && sets_path(attribute)) {
            self.mention(What::ForeignCode, path.span());
        }
        if path.is_ident("doc") {
            return;
        }
        match &attribute.meta {
            syn::Meta::List(list) => {
                self.read_tokens(&list.tokens);
                self.read_strings(&list.tokens);
                let is_clap = ["arg", "clap", "command"].iter().any(|name| path.is_ident(name));
                if is_clap && names_environment(&list.tokens) {
                    self.mention(What::EnvironmentAttribute, path.span());
                }
            }
            syn::Meta::NameValue(pair) => self.visit_expr(&pair.value),
            syn::Meta::Path(_) => {}
        }
    }

    /// `pub(in crate::x)` is no use of `crate::x`.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.mention(What::Path(Written::from(path)), path.span());
        if let Some(last) = path.segments.last().filter(|_| path.segments.len() > 1) {
            self.mention(What::Method(last.ident.to_string()), last.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        if let (Some(_), Some(last)) = (&expression.qself, expression.path.segments.last()) {
            self.mention(What::Method(last.ident.to_string()), last.ident.span());
        }
        visit::visit_expr_path(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.mention(What::Method(call.method.to_string()), call.method.span());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(token) = &signature.asyncness {
            self.mention(What::Async, token.span());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, expression: &'ast syn::ExprAsync) {
        self.mention(What::Async, expression.async_token.span());
        visit::visit_expr_async(self, expression);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.mention(What::Async, expression.await_token.span());
        visit::visit_expr_await(self, expression);
    }

    fn visit_expr_closure(&mut self, expression: &'ast syn::ExprClosure) {
        if let Some(token) = &expression.asyncness {
            self.mention(What::Async, token.span());
        }
        visit::visit_expr_closure(self, expression);
    }
}

/// Collects the paths inside a type.
#[derive(Default)]
struct TypePaths {
    found: Vec<(Written, Span)>,
}

impl TypePaths {
    fn of(ty: &syn::Type) -> Self {
        let mut types = Self::default();
        types.visit_type(ty);
        types
    }

    fn last_names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().filter_map(|(path, _)| path.segments.last().map(String::as_str))
    }
}

impl<'ast> Visit<'ast> for TypePaths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.push((Written::from(path), path.span()));
        visit::visit_path(self, path);
    }
}

impl Written {
    fn then(&self, ident: &syn::Ident) -> Self {
        let mut longer = self.clone();
        longer.segments.push(ident.to_string().trim_start_matches("r#").to_owned());
        longer
    }
}

impl From<&syn::Path> for Written {
    fn from(path: &syn::Path) -> Self {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string().trim_start_matches("r#").to_owned()).collect();
        Self { segments, is_rooted: path.leading_colon.is_some() }
    }
}

/// Exactly `cfg(test)` or `cfg(all(test, …))`: what else names `test` may still be compiled into the product.
fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    if !list.path.is_ident("cfg") {
        return false;
    }
    let tokens: Vec<TokenTree> = list.tokens.clone().into_iter().collect();
    match tokens.as_slice() {
        [TokenTree::Ident(test)] => test == "test",
        [TokenTree::Ident(all), TokenTree::Group(group)] if all == "all" && group.delimiter() == Delimiter::Parenthesis => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            inner
                .split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
                .any(|part| matches!(part, [TokenTree::Ident(test)] if test == "test"))
        }
        _ => false,
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether others than the module and its parent can see it.
fn is_seen(visibility: &syn::Visibility) -> bool {
    match visibility {
        syn::Visibility::Public(_) => true,
        syn::Visibility::Restricted(restricted) => restricted.path.is_ident("crate"),
        syn::Visibility::Inherited => false,
    }
}

/// `#[cfg_attr(…, path = "…")]`.
fn sets_path(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let tokens: Vec<TokenTree> = list.tokens.clone().into_iter().collect();
    tokens
        .windows(2)
        .any(|pair| matches!(pair, [TokenTree::Ident(name), TokenTree::Punct(punct)] if name == "path" && punct.as_char() == '='))
}

fn names_environment(tokens: &TokenStream) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "env",
        TokenTree::Group(group) => names_environment(&group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

fn text_of(token: &TokenTree) -> String {
    token.to_string().trim_start_matches("r#").to_owned()
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))
}

fn is_lifetime(tokens: &[TokenTree], at: usize) -> bool {
    at > 0 && matches!(&tokens[at - 1], TokenTree::Punct(punct) if punct.as_char() == '\'')
}
