package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxValueBytes       = 24576
	maxDescriptionRunes = 25
	maxDecrypters       = 64
)

// validate applies Grafana's rules to a write. old is nil for a create.
func validate(v, old *SecureValue) field.ErrorList {
	if bad := validation.IsDNS1123Subdomain(v.Name); bad != nil {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), v.Name, bad[0])}
	}
	if errs := validateDecrypters(v.Spec.Decrypters); errs != nil { // the real validator drops the other errors too
		return errs
	}
	spec := field.NewPath("spec")
	errs := validateValue(spec, v, old)
	if n := utf8.RuneCountInString(v.Spec.Description); n == 0 {
		errs = append(errs, field.Required(spec.Child("description"), "a `description` is required"))
	} else if n > maxDescriptionRunes {
		errs = append(errs, field.TooLong(spec.Child("description"), "", maxDescriptionRunes))
	}
	if v.Spec.Keeper != "" {
		errs = append(errs, field.Forbidden(spec, "the `keeper` cannot be changed"))
	}
	owners := field.NewPath("metadata", "ownerReferences")
	if len(v.OwnerReferences) > 1 {
		errs = append(errs, field.TooMany(owners, len(v.OwnerReferences), 1))
	}
	for _, owner := range v.OwnerReferences {
		if !strings.Contains(owner.APIVersion, "/") {
			errs = append(errs, field.Invalid(owners, owner.APIVersion, "an API group is required"))
		}
	}
	return errs
}

// validateValue checks the value and the reference, of which exactly one must be there.
func validateValue(spec *field.Path, v, old *SecureValue) field.ErrorList {
	value, ref := v.Spec.Value, v.Spec.Ref
	hasValue := value != nil && *value != ""
	switch {
	case hasValue && ref != "":
		return field.ErrorList{field.Forbidden(spec, "only one of `value` or `ref` can be set")}
	case value != nil && !hasValue, old == nil && !hasValue && ref == "":
		return field.ErrorList{field.Required(spec, "either a `value` or `ref` is required")}
	case old != nil && (hasValue && old.Spec.Ref != "" || ref != "" && old.Spec.Ref == ""):
		return field.ErrorList{field.Forbidden(spec, "`value` and `ref` cannot replace each other")}
	case hasValue && len(*value) > maxValueBytes:
		return field.ErrorList{field.TooLong(spec.Child("value"), "", maxValueBytes)}
	}
	return nil
}

func validateDecrypters(decrypters []string) field.ErrorList {
	path := field.NewPath("spec", "decrypters")
	if n := len(decrypters); n > maxDecrypters {
		return field.ErrorList{field.TooMany(path, n, maxDecrypters)}
	}
	seen := map[string]bool{}
	for i, decrypter := range decrypters {
		trimmed := strings.TrimSpace(decrypter) // only for the check: it is stored as sent
		if trimmed == "" || seen[trimmed] || validation.IsValidLabelValue(trimmed) != nil {
			return field.ErrorList{field.Invalid(path.Child(fmt.Sprintf("[%d]", i)), decrypter, "must be the name of a service, once")}
		}
		seen[trimmed] = true
	}
	return nil
}
