/* test_constrain_schema.c: JSON texts that schemas take and refuse, keyword by keyword, with the masks on the way; and refusals by name. */
#include "constrain/schema.h"
#include "helpers/constrain_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct constrain_limits limits = CONSTRAIN_LIMITS;

static int read_schema(const char *what, struct grammar **grammar, runnel_error *error)
{
    return schema_grammar(&limits, what, strlen(what), grammar, error);
}

#define LABEL_61 "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghija"
#define LABEL_63 LABEL_61 "bc"

static const struct constrain_case scalars[] = {
    {"{\"type\":\"null\"}", {"null", " \n null"}, {"", "true", "nul"}},
    {"{\"type\":[\"boolean\",\"integer\"]}", {"true", "false", "-12", "0"}, {"1.5", "01", "null", "\"a\""}},
    {"{\"type\":\"number\"}", {"1", "-0.5", "1e5", "2.5E-3"}, {"+1", ".5", "1.", "1e", "--1"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a\\n\\u00e9\xc3\xa9\\ud83d\\ude00\""},
     {"\"", "\"\n\"", "\"\\x\"", "\"\\ud83d\"", "a"}},
    {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":12}",
     {"-3", "0", "9", "12"},
     {"-4", "13", "100", "1.5"}},
    {"{\"type\":\"number\",\"minimum\":0.25,\"exclusiveMaximum\":10}",
     {"0.25", "0.3", "9.99", "1", "0.250"},
     {"0.2", "0.24999", "10", "10.0", "-1", "0"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"maximum\":-0.5}",
     {"-0.5", "-1", "-1.4999", "-0.50"},
     {"-1.5", "-1.50", "-0.49", "0", "1", "-2"}},
    {"{\"type\":\"number\",\"minimum\":5,\"exclusiveMinimum\":true}", {"6", "5.1"}, {"5", "5.0", "4"}},
    {"{\"type\":\"integer\",\"minimum\":0,\"maximum\":0}", {"0", "-0"}, {"1", "-1"}},
    {"{\"type\":\"integer\",\"multipleOf\":10,\"maximum\":2e2}",
     {"0", "10", "-30", "200"},
     {"5", "11", "210"}},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", {"1", "1.25", "-0.1", "1.200"}, {"1.255"}},
    {"{\"type\":\"integer\",\"multipleOf\":86400}",
     {"0", "86400", "-172800", "950400", "123456787200000"},
     {"1", "86401", "8640", "950401"}},
    {"{\"multipleOf\":1000000,\"minimum\":5000000}",
     {"5000000", "37000000.0", "123456000000"},
     {"0", "4000000", "5000001", "-5000000"}},
    {"{\"type\":\"number\",\"multipleOf\":1234.5}",
     {"1234.5", "2469", "-3703.50", "0"},
     {"1234", "1.5", "2469.5"}},
    {"{\"type\":\"integer\",\"multipleOf\":100000,\"allOf\":[{\"multipleOf\":2}],\"not\":{\"maximum\":5}}",
     {"100000", "1700000"},
     {"0", "50000", "-100000"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"a\\nc\"", "\"\xe6\xbc\xa2\\u6f22\""},
     {"\"a\"", "\"abcd\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a[^b]\",\"maxLength\":3}",
     {"\"ac\"", "\"a\\\"x\""},
     {"\"ab\"", "\"acde\"", "\"xac\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(?!^[-+.]*$)[+-]?0*\\\\d*\\\\.?\\\\d*$\"}", /* pydantic's Decimal */
     {"\"1.50\"", "\"-0\"", "\".5\"", "\"+007\""},
     {"\"\"", "\"-\"", "\"+.\"", "\"a\"", "\"1.2.3\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(?!^[-+.]*$)[+-]?0*(?:\\\\d{0,3}$|(?=[\\\\d.]{1,6}0*$)\\\\d{0,3}"
     "\\\\.\\\\d{0,2}0*$)\"}",
     {"\"123\"", "\"1.25\"", "\"-001.2\"", "\"999.99000\"", "\".5\""},
     {"\"\"", "\"1234\"", "\"1.253\"", "\"1234.5\"", "\"-.\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2026-11-29\"", "\"2024-02-29\"", "\"2000-02-29\"", "\"2023-02-28\""},
     {"\"2026-13-01\"", "\"2026-04-31\"", "\"2023-02-29\"", "\"1900-02-29\"", "\"2024-02-30\"", "\"x\""}},
    {"{\"type\":\"string\",\"format\":\"ipv6\"}",
     {"\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"::ffff:1.2.3.4\""},
     {"\"1:2\"", "\":::\""}},
    {"{\"type\":\"string\",\"format\":\"uri\"}",
     {"\"https://a.b/c?d=e-f#g\"", "\"urn:x\""},
     {"\"/a\"", "\"a b:c\""}},
    {"{\"type\":\"string\",\"format\":\"time\"}",
     {"\"23:59:60Z\"", "\"23:59:60.5+00:00\"", "\"08:30:59.123-08:00\""},
     {"\"22:59:60Z\"", "\"23:58:60Z\"", "\"23:59:60+01:00\"", "\"23:59:61Z\"", "\"24:00:00Z\"",
      "\"12:00:00\"", "\"12:00:00+24:00\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"1998-12-31T23:59:60Z\"", "\"2024-02-29t23:59:59.9z\""},
     {"\"1998-12-31T22:59:60Z\"", "\"1998-12-31T23:58:60Z\"", "\"1998-12-30T23:59:60Z\"",
      "\"2023-02-29T00:00:00Z\""}},
    {"{\"type\":\"string\",\"format\":\"uri\"}",
     {"\"http://[2001:db8::7]:80/\"", "\"http://[v1.a:b]/\""},
     {"\"http://[:::]/\"", "\"http://[1]/\"", "\"http://[]/\"", "\"http://[v1]/\""}},
    {"{\"type\":\"string\",\"format\":\"hostname\"}",
     {"\"a\"", "\"a1\"", "\"a-b\"", "\"a--b\"", "\"abc-d.e--f\"",
      "\"" LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_61 "\""},
     {"\"\"", "\"a.\"", "\"a-\"", "\"-a\"", "\"" LABEL_63 "x\"", "\"xn--x\"",
      "\"" LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_61 "x\""}},
    {"{\"type\":\"string\",\"format\":\"email\"}",
     {"\"a.b@c.de\"", "\"" LABEL_63 "x@c\""},
     {"\".a@b\"", "\"a.@b\"", "\"a..b@c\"", "\"a@b=c\"", "\"" LABEL_63 "xy@c\"",
      "\"a@" LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_61 "x\""}},
    {"{\"type\":\"string\",\"not\":{\"format\":\"email\"}}",
     {"\"a\""},
     {"\"a@b.c\"", "\"\\\"a b\\\"@c.de\""}},
    {"{\"type\":[\"number\",\"null\",\"boolean\"],\"not\":{\"enum\":[null,false,\"a\",[1]]}}",
     {"1", "true"},
     {"null", "false"}},
    {"{\"enum\":[\"ab\",\"c\",{\"b\":1},[2]],\"minLength\":2}",
     {"\"ab\"", "{\"b\":1}", "[2]"},
     {"\"c\"", "{}"}},
    {"{\"type\":\"string\",\"format\":\"no-such\"}", {"\"x\""}, {"1"}},
    {"{\"enum\":[\"a\",1,null,[1,{\"b\":2}]]}",
     {"\"a\"", "1", "null", "[1,{\"b\":2}]", "[ 1, { \"b\" : 2 } ]"},
     {"\"b\"", "[1]", "true"}},
    {"{\"const\":\"x\\\"y\"}", {"\"x\\\"y\""}, {"\"xy\""}},
    {"{\"enum\":[\"a\",\"bb\",3],\"type\":\"string\",\"minLength\":2}", {"\"bb\""}, {"\"a\"", "3"}},
    {"{\"type\":\"string\",\"not\":{\"enum\":[\"ab\",\"c\"]}}",
     {"\"a\"", "\"abc\"", "\"\""},
     {"\"ab\"", "\"c\"", "\"\\u0063\""}},
    {"{\"type\":[\"string\",\"integer\"],\"not\":{\"type\":\"string\",\"pattern\":\"x\"}}",
     {"\"y\"", "3"},
     {"\"axb\""}},
    {"{\"not\":{\"type\":\"integer\"},\"type\":\"number\"}", {"1.5", "0.01"}, {"1", "2.0", "null"}},
    {"{\"type\":\"integer\",\"not\":{\"minimum\":5}}", {"4", "-9"}, {"5", "6"}},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":10}",
     {"14", "21", "700", "123456789012345678901234567890"},
     {"7", "13", "15", "0", "-14", "123456789012345678901234567893"}},
    {"{\"multipleOf\":256}",
     {"0", "256", "-512", "65536.0", "\"a\""},
     {"1", "255", "257", "256.5", "2560.01"}},
    {"{\"type\":\"number\",\"multipleOf\":0.25}",
     {"0.25", "-1.5", "3", "3.0", "0.750", "10.000", "2.5", "0.5"},
     {"0.1", "0.26", "0.255", "1.4", "0.2500001", "2.05"}},
    {"{\"type\":\"number\",\"multipleOf\":1.5}",
     {"1.5", "3", "4.50", "0", "3.0"},
     {"1", "2", "15.1", "0.5", "2.0"}},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", {"0.01", "1.1", "5", "7.120"}, {"0.001", "1.111"}},
    {"{\"type\":\"string\",\"format\":\"regex\"}",
     {"\"^a[b-z0-9_-]+$\"", "\"\"", "\"(a|(?:b{2,}c?)*)+?\\\\.x\"", "\"[^\\\\d ]{1,3}|é\"", "\"^/.+/$\""},
     {"\"(\"", "\"a)\"", "\"[b-a]\"", "\"*\"", "\"a**\"", "\"\\\\\"", "\"[\"", "\"a{3,2}\"", "\"x{\"",
      "\"(?<a)\""}},
};

static const struct constrain_case composed[] = {
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":2},\"b\":{\"type\":"
     "\"string\","
     "\"minLength\":2,\"maxLength\":20}}}",
     {"{\"a\":\"xy\",\"b\":\"0123456789abcdefghij\"}", "{\"a\":\"\\\"\\u00e9\"}",
      "{\"a\":\"\",\"b\":\"xy\"}"},
     {"{\"a\":\"xyz\"}", "{\"b\":\"0123456789abcdefghijk\"}", "{\"a\":\"xy\",\"b\":\"x\"}"}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}",
     {"1", "\"a\""},
     {"\"ab\"", "1.5"}},
    {"{\"allOf\":[{\"minimum\":3},{\"maximum\":5}],\"type\":\"integer\"}", {"3", "5"}, {"2", "6"}},
    {"{\"oneOf\":[{\"type\":\"integer\",\"minimum\":5},{\"type\":\"integer\",\"maximum\":7}]}",
     {"4", "8"},
     {"5", "6", "7"}},
    {"{\"type\":\"object\",\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}],"
     "\"additionalProperties\":false,"
     "\"properties\":{\"a\":{},\"b\":{\"type\":\"null\"}}}",
     {"{\"a\":1}", "{\"b\":null}"},
     {"{}", "{\"a\":1,\"b\":null}", "{\"b\":1}"}},
    {"{\"type\":\"integer\",\"minimum\":0,\"not\":{\"oneOf\":[{\"minimum\":3},{\"maximum\":5},{\"minimum\":8}"
     "]}}",
     {"3", "5", "8", "30"},
     {"2", "6", "7"}},
    {"{\"if\":{\"type\":\"integer\"},\"then\":{\"minimum\":10},\"else\":{\"type\":\"boolean\"}}",
     {"10", "true"},
     {"9", "null"}},
    {"{\"$ref\":\"#/$defs/"
     "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"$"
     "ref\":\"#/$defs/n\"}},"
     "\"required\":[\"v\"],\"additionalProperties\":false}}}",
     {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}"},
     {"{}", "{\"v\":1,\"next\":{}}", "{\"next\":{\"v\":1},\"v\":2}"}},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", {"null"}, {"1"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"dependentRequired\":{\"a\":[\"b\"]},"
     "\"additionalProperties\":false}",
     {"{}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
     {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"allOf\":[{\"$ref\":\"#/$defs/"
     "ab\"},{\"properties\":{\"c\":{}}}],\"properties\":{\"d\":{}},"
     "\"$defs\":{\"ab\":{\"allOf\":[{\"properties\":{\"a\":{}}},{\"properties\":{\"b\":{}}}]}}}",
     {"{\"a\":1,\"b\":2,\"c\":3,\"d\":4}", "{\"b\":2,\"d\":4}"},
     {"{\"c\":3,\"b\":2}", "{\"d\":4,\"c\":3}", "{\"b\":2,\"a\":1}"}},
    {"{\"$ref\":\"#/$defs/a%2Fb~1c%7E0\",\"$defs\":{\"a/b/c~\":{\"type\":\"null\"}}}", {"null"}, {"1"}},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#/anyOf/0\"}}]}",
     {"null", "[null]"},
     {"[1]"}},
    {"{\"$schema\":\"http://json-schema.org/draft-07/"
     "schema#\",\"type\":[\"object\",\"null\"],\"not\":{\"$ref\":\"#/definitions/"
     "a\",\"required\":[\"x\"]},\"definitions\":{\"a\":{\"type\":\"object\"}}}",
     {"null"},
     {"{}", "{\"x\":1}"}},
    {"{\"type\":[\"object\",\"null\"],\"not\":{\"$ref\":\"#/$defs/"
     "a\",\"required\":[\"x\"]},\"$defs\":{\"a\":{\"type\":\"object\"}}}",
     {"null", "{}", "{\"y\":1}"},
     {"{\"x\":1}"}},
    {"{\"$schema\":\"http://json-schema.org/draft-04/"
     "schema#\",\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"$ref\":\"#/definitions/"
     "any\",\"enum\":[true]}},\"required\":[\"k\"]},{\"type\":\"object\",\"properties\":{\"k\":{\"enum\":["
     "\"b\"]}},\"required\":[\"k\"]}],\"definitions\":{\"any\":{}}}",
     {"{\"k\":true}"},
     {"{\"k\":\"b\"}", "{}"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"],"
     "\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{\"b\":{}},\"required\":[\"b\"],"
     "\"additionalProperties\":false}]}",
     {"{\"a\":1}", "{\"b\":2}"},
     {"{}", "{\"a\":1,\"b\":2}", "{\"c\":1}"}},
    {"{\"oneOf\":[{\"const\":1.50},{\"enum\":[-1.5,10,\"1.5\",{\"a\":1}]},{\"enum\":[1,100]}]}",
     {"1.50", "10", "\"1.5\"", "1", "{\"a\":1}"},
     {"1.5", "0"}},
    {"true", {"[{\"a\":[1,\"x\"]}]", "1"}, {"[1,]", "{\"a\"}"}},
    {"{\"$ref\":\"#n\",\"$defs\":{\"e\":{\"enum\":[{\"$anchor\":\"n\",\"type\":\"null\"}]},"
     "\"u\":{\"unknown\":{\"$anchor\":\"n\",\"type\":\"null\"}},\"r\":{\"not\":{\"$anchor\":\"n\",\"type\":"
     "\"string\"}}}}",
     {"\"a\""},
     {"null", "1"}}, /* a name is one where a schema stands */
    {"{\"disallow\":\"string\",\"type\":[\"string\",\"null\"]}", {"\"a\"", "null"}, {"1"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"maxItems\":2147483647}",
     {"[]", "[\"a\",\"b\"]"},
     {"[1]"}},
};

static const struct constrain_case containers[] = {
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     {"[1]", "[ 1 , 2,3 ]"},
     {"[]", "[1,2,3,4]", "[\"a\"]", "[1 2]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":false}",
     {"[]", "[1]", "[1,\"a\"]"},
     {"[\"a\"]", "[1,2]", "[1,\"a\",1]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},"
     "\"minItems\":2}",
     {"[1,null]", "[1,null,null]"},
     {"[1]", "[null,null]", "[1,1]"}},
    {"{\"type\":\"array\",\"items\":[{\"type\":\"integer\"}],\"additionalItems\":{\"type\":\"null\"}}",
     {"[]", "[1,null]"},
     {"[1,1]"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"},\"c\":{"
     "\"type\":\"null\"}},"
     "\"required\":[\"b\"],\"additionalProperties\":false}",
     {"{\"b\":\"\"}", "{\"a\":1,\"b\":\"x\",\"c\":null}", "{ \"a\" : 1,\n \"b\": \"y\" }"},
     {"{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",\"d\":1}", "{,\"b\":\"\"}", "{\"b\":\"\",}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":{\"type\":"
     "\"null\"}}",
     {"{}", "{\"a\":1,\"b\":null,\"aa\":null}", "{\"x\":null}"},
     {"{\"b\":1}", "{\"b\":null,\"a\":null}", "{\"b\":null,\"\\u0061\":null}"}},
    {"{\"type\":\"object\",\"patternProperties\":{\"^x\":{\"type\":\"integer\"},\"y$\":{\"minimum\":5}},"
     "\"additionalProperties\":false}",
     {"{\"x\":1,\"ay\":\"s\",\"xy\":7}", "{}"},
     {"{\"xy\":3}", "{\"z\":1}", "{\"x\":\"s\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"xa\":{\"minimum\":3}},\"patternProperties\":{\"^x\":{\"type\":"
     "\"integer\"}},\"required\":[\"q\"]}",
     {"{\"xa\":3,\"q\":[]}", "{\"q\":1,\"xb\":2}"},
     {"{\"xa\":2,\"q\":1}", "{\"xa\":\"s\",\"q\":1}", "{\"xa\":3}", "{\"q\":1,\"xb\":\"s\"}"}},
    {"{\"type\":\"object\",\"minProperties\":2,\"maxProperties\":3,\"properties\":{\"a\":{}},"
     "\"additionalProperties\":{\"type\":\"integer\"},\"required\":[\"a\"]}",
     {"{\"a\":1,\"b\":2}", "{\"a\":1,\"c\":2,\"d\":3}"},
     {"{\"a\":1}", "{}", "{\"b\":1,\"c\":2}", "{\"a\":1,\"b\":2,\"c\":3,\"d\":4}"}},
    {"{\"type\":\"object\",\"minProperties\":2,\"properties\":{\"a\":{},\"b\":{},\"c\":{}},"
     "\"additionalProperties\":false}",
     {"{\"a\":1,\"b\":2}", "{\"b\":1,\"c\":2}", "{\"a\":1,\"b\":2,\"c\":3}"},
     {"{\"a\":1}", "{}", "{\"a\":1,\"a\":2}"}},
    {"{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-z]+$\"},\"additionalProperties\":{\"type\":"
     "\"null\"}}",
     {"{\"ab\":null}"},
     {"{\"A\":null}", "{\"\":null}"}},
    {"{\"type\":\"array\",\"uniqueItems\":true,\"maxItems\":1}",
     {"[]", "[1]", "[[1,1]]"},
     {"[1,1]", "[1,2]"}},
    {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":[\"boolean\",\"null\"]},\"minItems\":1}",
     {"[true]", "[ false , true ]", "[null,false,true]"},
     {"[]", "[true,true]", "[null,true,null]", "[1]", "[true,]"}},
    {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",\"ab\",1,{\"c\":1}],\"not\":{"
     "\"const\":\"ab\"}},\"maxItems\":2}",
     {"[]", "[1,\"a\"]", "[\"a\",{\"c\":1}]"},
     {"[\"a\",\"a\"]", "[\"ab\"]", "[1,\"a\",{\"c\":1}]", "[{\"c\":1},{\"c\":1}]"}},
    {"{\"type\":\"object\",\"propertyNames\":{\"not\":{\"enum\":[\"a\",\"cd\"]}}}",
     {"{\"b\":1}", "{}", "{\"c\":1,\"aa\":2}"},
     {"{\"a\":1}", "{\"b\":1,\"cd\":2}", "{\"\\u0061\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"propertyNames\":{\"not\":{\"enum\":[\"a\"]}}"
     "}",
     {"{\"b\":1}"},
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":5}}",
     {"[5]", "[1,7]", "[1, 2, 9, 3]", "[6,7]"},
     {"[]", "[1]", "[1,2,3]", "[5,\"a\"]", "[\"a\",5]"}},
    {"{\"type\":\"array\",\"not\":{\"items\":{\"type\":\"integer\"}}}",
     {"[\"a\"]", "[1,\"a\"]", "[null,1,2]"},
     {"[]", "[1]", "[1,2]"}},
    {"{\"type\":\"array\",\"not\":{\"contains\":{\"type\":\"null\"}},\"minContains\":3}",
     {"[]", "[1,\"a\"]"},
     {"[null]", "[1,null,2]", "null"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"not\":{\"required\":[\"b\"]}}",
     {"{\"a\":1}", "{\"c\":1}"},
     {"{\"b\":1}"}},
};

#define CHECK_ALL(name, cases)                                                                               \
    static void name(void **state)                                                                           \
    {                                                                                                        \
        (void)state;                                                                                         \
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)                                            \
            constrain_check(&cases[i], read_schema);                                                         \
    }

CHECK_ALL(test_scalars, scalars)
CHECK_ALL(test_composed, composed)
CHECK_ALL(test_containers, containers)

#define NAME_65  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-"
#define NAME_455 NAME_65 NAME_65 NAME_65 NAME_65 NAME_65 NAME_65 NAME_65
#define NAME_511 NAME_455 "0123456789abcdef0123456789abcdef0123456789abcdef01234567"
#define NAME_520 NAME_455 NAME_65

static void test_refusals(void **state)
{
    static const char *const refused[][2] = {
        {"{", "JSON"},
        {"[]", "expected an object"},
        {"{\"type\":\"strin\"}", "type: 'strin'"},
        {"{\"required\":\"a\"}", "required: expected an array"},
        {"{\"properties\":{\"a\":{\"required\":true}}}", "required: expected an array"},
        {"{\"required\":[1]}", "required: expected strings"},
        {"{\"properties\":[]}", "properties: expected an object"},
        {"{\"enum\":\"abc\"}", "enum: expected an array"},
        {"{\"type\":\"array\",\"uniqueItems\":\"true\"}", "uniqueItems: expected true or false"},
        {"{\"contains\":{},\"minItems\":2}", "contains: beside"},
        {"{\"contains\":{},\"minContains\":2}", "'minContains'"},
        {"{\"allOf\":[{\"contains\":{\"const\":1}},{\"contains\":{}}]}", "contains: more than one"},
        {"{\"type\":\"object\",\"minProperties\":2}", "minProperties: expected at most one more"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "'uniqueItems'"},
        {"{\"unevaluatedProperties\":false}", "'unevaluatedProperties'"},
        {"{\"type\":\"number\",\"multipleOf\":12345678}", "multipleOf: '12345678'"},
        {"{\"type\":\"number\",\"multipleOf\":0}", "above 0"},
        {"{\"type\":\"number\",\"multipleOf\":-2}", "above 0"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", "format: 'iri'"},
        {"{\"not\":{\"format\":\"regex\"}}", "no text can fulfil it"},
        {"{\"type\":\"string\",\"pattern\":\"(\"}", "pattern: '('"},
        {"{\"$ref\":\"http://x.y/z\"}", "$ref: 'http://x.y/z'"},
        {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$id\":\"http://x.y/a\",\"$defs\":{\"b\":{\"type\":"
         "\"integer\"}},\"properties\":{\"v\":{\"$ref\":\"#/$defs/b\"}}},\"b\":{\"type\":\"string\"}}}",
         "$ref: '#/$defs/b' within"},
        {"{\"type\":\"string\",\"minLength\":-1}", "minLength"},
        {"{\"type\":\"string\",\"minLength\":99999999}", "minLength"},
        {"{\"type\":\"array\",\"items\":{},\"minItems\":999999}", "minItems"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"maxItems\":20000}", "maxItems"},
        {"{\"type\":\"integer\",\"multipleOf\":86400,\"maximum\":900000}", "multipleOf: beside a maximum"},
        {"{\"type\":\"integer\",\"multipleOf\":999,\"allOf\":[{\"multipleOf\":1000}]}",
         "multipleOf: beside another one"},
        {"{\"$schema\":\"http://json-schema.org/draft-03/schema#\",\"disallow\":\"string\"}", "'disallow'"},
        {"{\"$schema\":\"http://json-schema.org/draft-03/schema#\",\"divisibleBy\":2}", "'divisibleBy'"},
        {"{\"$schema\":\"http://json-schema.org/draft-04/"
         "schema#\",\"definitions\":{\"n\":{\"type\":\"string\"}},"
         "\"properties\":{\"a\":{\"id\":\"http://x.y/a\",\"definitions\":{\"n\":{\"type\":\"integer\"}},"
         "\"properties\":{\"b\":{\"$ref\":\"#/definitions/n\"}}}}}",
         "$ref: '#/definitions/n' within"},
        {"{\"$ref\":\"#n\",\"$defs\":{\"e\":{\"enum\":[{\"$anchor\":\"n\"}]}}}", "$ref: '#n' is not"},
        {"{\"propertyNames\":{\"not\":{\"pattern\":\"a\",\"minLength\":2}}}",
         "propertyNames: 'not' within it"},
        {"{\"propertyNames\":{\"not\":{\"allOf\":[{}]}}}", "propertyNames: 'allOf' within it"},
        {"{\"type\":\"string\",\"format\":5}", "format: expected a string"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/anyOf/foo\"}]}", "$ref: '#/anyOf/foo' is not"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/anyOf/00\"}]}", "$ref: '#/anyOf/00' is not"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/anyOf/-0\"}]}", "$ref: '#/anyOf/-0' is not"},
        {"{\"$ref\":\"#/$defs/a\\u0000b\",\"$defs\":{\"a\":{}}}", "$ref: '"},
        {"{\"$ref\":\"#/$defs/" NAME_520 "\",\"$defs\":{\"" NAME_511 "\":{}}}", "$ref: '#/$defs/0123"},
        {"{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"oneOf\":[{\"$ref\":\"#/definitions/"
         "a\",\"required\":[\"x\"]},{\"type\":\"object\"}],\"definitions\":{\"a\":{\"type\":\"object\"}}}",
         "no text can fulfil it"},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"],"
         "\"additionalProperties\":false},{\"type\":\"object\",\"required\":[\"a\"]}]}",
         "oneOf: 'additionalProperties' within it"},
        {"{\"oneOf\":[{\"type\":\"object\",\"required\":[\"xa\"]},{\"type\":\"object\",\"patternProperties\":"
         "{\"^x\":{}},\"additionalProperties\":false}]}",
         "oneOf: 'patternProperties' within it"},
        {"{\"if\":{\"additionalProperties\":false},\"else\":{}}", "if: 'additionalProperties' within it"},
        {"{\"oneOf\":[{\"const\":1},{\"const\":1.0}]}", "oneOf: 'const' of numbers"},
        {"{\"oneOf\":[{\"const\":0},{\"const\":-0.0}]}", "oneOf: 'const' of numbers"},
        {"{\"oneOf\":[{\"const\":100},{\"const\":1e2}]}", "oneOf: 'const' of numbers"},
        {"{\"oneOf\":[{\"const\":{\"a\":1,\"b\":2}},{\"const\":{\"b\":2,\"a\":1.0}}]}",
         "oneOf: 'const' of arrays or objects"},
        {"{\"enum\":[{\"a\":1}],\"minLength\":1,\"minProperties\":1}", "beside 'minProperties'"},
        {"{\"enum\":[{\"a\":1}],\"not\":{\"required\":[\"b\"]}}", "beside 'required'"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[1,2,3,4,5,6,7,8,9]}}",
         "'uniqueItems'"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[1,1.0]}}", "'uniqueItems'"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":[{}]}", "'uniqueItems'"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"boolean\"},\"minItems\":3}",
         "no text can fulfil it"},
        {"{\"not\":{\"uniqueItems\":true}}", "not: 'uniqueItems'"},
        {"{\"not\":{\"items\":[{\"type\":\"null\"}]}}", "not: 'items'"},
        {"false", "schema: no value can fulfil it"},
        {"{\"type\":\"string\",\"enum\":[1]}", "no value can fulfil it"},
        {"{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}", "no text can fulfil it"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *found = constrain_refusal(refused[i][0], read_schema);
        if (!found || !strstr(found, refused[i][1]))
            fail_msg("%s: expected '%s', found '%s'", refused[i][0], refused[i][1],
                     found ? found : "that it is taken");
    }
}

/* Schemas within schemas without end, and as many as can be: refused, or compiled within the bounds. */
static void test_hostile(void **state)
{
    struct text {
        char bytes[60000];
        size_t len;
    } *text = calloc(1, sizeof *text);
    (void)state;
    assert_non_null(text);
    for (unsigned i = 0; i < 5000; i++) /* deep */
        text->len += (size_t)sprintf(text->bytes + text->len, "{\"not\":");
    assert_non_null(constrain_refusal(text->bytes, read_schema));
    text->len = (size_t)sprintf(text->bytes, "{\"type\":\"object\",\"allOf\":["); /* exponential */
    for (unsigned i = 0; i < 40; i++)
        text->len += (size_t)sprintf(text->bytes + text->len,
                                     "%s{\"anyOf\":[{\"required\":[\"a%u\"]},{\"required\":[\"b%u\"]}]}",
                                     i ? "," : "", i, i);
    strcpy(text->bytes + text->len, "]}");
    assert_non_null(constrain_refusal(text->bytes, read_schema));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),  cmocka_unit_test(test_composed), cmocka_unit_test(test_containers),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
