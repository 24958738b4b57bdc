//! A struct that grows: its fields of the first version in order, and then whatever came later and is
//! not its default.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Result};

use crate::args::{at, scope};
use crate::fields::{Grown, Placed, Since, grown, only_crate};

/// `#[grows]` on a struct.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let krate = only_crate("#[grows]", args)?;
    let (item, fields) = grown("#[grows]", item)?;
    let scope = scope(krate.as_ref());
    let layout = growing(&item.ident, &item.ident.to_string(), &fields);
    Ok(quote! {
        #item
        const _: () = {
            #scope
            #layout
        };
    })
}

/// `Wire`, `Serialize` and `Deserialize` of a growing struct; errors call it `of`.
pub(crate) fn growing(ident: &Ident, of: &str, fields: &Grown) -> TokenStream {
    let wire = wire(ident, fields);
    let later = later(of, fields);
    let serialize = serialize(ident, fields);
    let deserialize = deserialize(ident, of, fields);
    quote!(#wire #later #serialize #deserialize)
}

/// The fields of the first version are the layout. The types of later ones stand aside: they are
/// evaluated, so that a type that contains itself does not compile there either.
fn wire(ident: &Ident, fields: &Grown) -> TokenStream {
    let base = fields.base.iter().map(|field| {
        let (name, layout) = (field.text(), field.layout());
        quote!(.field(#name, #layout))
    });
    let aside = fields.later.iter().map(|(field, _)| {
        let layout = field.layout();
        quote!(.aside(#layout))
    });
    quote! {
        impl __rhumb::core::wire::Wire for #ident {
            const LAYOUT: u64 = __rhumb::core::wire::Layout::of("growing")#(#base)*#(#aside)*.finish();
        }
        const _: u64 = <#ident as __rhumb::core::wire::Wire>::LAYOUT;
    }
}

/// A constant for each field that came later.
fn later(of: &str, fields: &Grown) -> TokenStream {
    let each = fields.later.iter().zip(1u16..).map(|((field, since), number)| {
        let Since { version, may_drop } = *since;
        let (constant, name, layout) = (constant(number), field.text(), field.layout());
        quote! {
            const #constant: __rhumb::core::wire::Extension = __rhumb::core::wire::Extension {
                of: #of,
                field: #name,
                number: #number,
                since: #version,
                may_drop: #may_drop,
                layout: __rhumb::core::wire::Layout::of("extension").field(#name, #layout).finish(),
            };
        }
    });
    quote!(#(#each)*)
}

fn constant(number: u16) -> Ident {
    format_ident!("__LATER_{number}", span = Span::call_site())
}

fn serialize(ident: &Ident, fields: &Grown) -> TokenStream {
    let put = fields.later.iter().zip(1..).map(|((field, _), number)| {
        let (name, constant) = (&field.name, constant(number));
        let put = quote_spanned!(at(field.ty.span())=> __extensions.put(&#constant, &self.#name));
        quote!(#put.map_err(<__S::Error as __rhumb::serde::ser::Error>::custom)?;)
    });
    let elements = fields.base.iter().map(|field| {
        let name = &field.name;
        quote_spanned! {at(field.ty.span())=>
            __rhumb::serde::ser::SerializeTuple::serialize_element(&mut __tuple, &self.#name)?;
        }
    });
    let (length, mutable) = (fields.base.len() + 1, (!fields.later.is_empty()).then(|| quote!(mut)));
    quote! {
        impl __rhumb::serde::Serialize for #ident {
            fn serialize<__S: __rhumb::serde::Serializer>(
                &self,
                __serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                let #mutable __extensions = __rhumb::core::wire::Extensions::new();
                #(#put)*
                let mut __tuple = __rhumb::serde::Serializer::serialize_tuple(__serializer, #length)?;
                #(#elements)*
                __rhumb::serde::ser::SerializeTuple::serialize_element(&mut __tuple, &__extensions)?;
                __rhumb::serde::ser::SerializeTuple::end(__tuple)
            }
        }
    }
}

fn deserialize(ident: &Ident, of: &str, fields: &Grown) -> TokenStream {
    let base = fields.base.iter().map(|field| {
        let (local, ty) = (local(field), &field.ty);
        quote!(let #local = __rhumb::core::wire::element::<#ty, __A>(&mut __seq, #of)?;)
    });
    let later = fields.later.iter().zip(1..).map(|((field, _), number)| {
        let (local, ty, constant) = (local(field), &field.ty, constant(number));
        quote! {
            let #local = __extensions
                .take::<#ty>(&#constant)
                .map_err(<__A::Error as __rhumb::serde::de::Error>::custom)?;
        }
    });
    let all = fields.base.iter().chain(fields.later.iter().map(|(field, _)| field)).map(|field| {
        let (name, local) = (&field.name, local(field));
        quote!(#name: #local)
    });
    let (length, mutable) = (fields.base.len() + 1, (!fields.later.is_empty()).then(|| quote!(mut)));
    quote! {
        impl<'de> __rhumb::serde::Deserialize<'de> for #ident {
            fn deserialize<__D: __rhumb::serde::Deserializer<'de>>(
                __deserializer: __D,
            ) -> ::core::result::Result<Self, __D::Error> {
                struct __Fields;
                impl<'de> __rhumb::serde::de::Visitor<'de> for __Fields {
                    type Value = #ident;
                    fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                        f.write_str(#of)
                    }
                    fn visit_seq<__A: __rhumb::serde::de::SeqAccess<'de>>(
                        self,
                        mut __seq: __A,
                    ) -> ::core::result::Result<#ident, __A::Error> {
                        #(#base)*
                        let #mutable __extensions = __rhumb::core::wire::element::<
                            __rhumb::core::wire::Extensions,
                            __A,
                        >(&mut __seq, #of)?;
                        #(#later)*
                        __extensions
                            .finish(#of)
                            .map_err(<__A::Error as __rhumb::serde::de::Error>::custom)?;
                        ::core::result::Result::Ok(#ident { #(#all),* })
                    }
                }
                __rhumb::serde::Deserializer::deserialize_tuple(__deserializer, #length, __Fields)
            }
        }
    }
}

/// The variable that a field is read into: no name of the user's can be the same.
fn local(field: &Placed) -> Ident {
    format_ident!("__read_{}", field.text(), span = Span::call_site())
}
