/* SPDX-License-Identifier: MIT */
#include "server/tls_show.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "runtime/log.h"
#include "server/certificate.h"
#include "server/json_text.h"

#define PROBLEMS_MAX 16
#define PROBLEM_BYTES 256
#define HOSTS_TEXT_BYTES 1024
#define NAME_TEXT_BYTES 256
#define FINGERPRINT_BYTES (EVP_MAX_MD_SIZE * 3)

/* A certificate that ends sooner is a problem already. */
#define SOON_DAYS 30

static const struct {
	const char *file;
	const char *key_file;
} kinds[] = {
	{ CERTIFICATE_CA_FILE, CERTIFICATE_CA_KEY_FILE },
	{ CERTIFICATE_SERVER_FILE, CERTIFICATE_SERVER_KEY_FILE },
	{ CERTIFICATE_CLIENT_FILE, CERTIFICATE_CLIENT_KEY_FILE },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct shown {
	const char *directory;
	X509 *authority;	/* or NULL */
	unsigned problems_count;
	char problems[PROBLEMS_MAX][PROBLEM_BYTES];
	bool json;
	json_t *list;
};

/* What is printed of one certificate. */
struct facts {
	const char *file;
	bool has_key;
	char name[NAME_TEXT_BYTES];	/* the common name, quoted */
	char issuer[NAME_TEXT_BYTES];
	char hosts[HOSTS_TEXT_BYTES];	/* "a, b", or empty */
	char fingerprint[FINGERPRINT_BYTES];
	char until[32];
	int days;			/* left; below 0 once it has ended */
};

static void __attribute__((format(printf, 2, 3)))
note_problem(struct shown *shown, const char *format, ...)
{
	va_list arguments;

	if (shown->problems_count == PROBLEMS_MAX)
		return;
	va_start(arguments, format);
	vsnprintf(shown->problems[shown->problems_count++], PROBLEM_BYTES,
	    format, arguments);
	va_end(arguments);
}

/* ---- the facts of one ---- */

/* A name from a file may hold anything: it is quoted as in the log. */
static void
describe_name(const X509_NAME *name, char text[NAME_TEXT_BYTES])
{
	int index = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
	unsigned char *utf8 = NULL;
	int bytes = -1;

	if (index >= 0)
		bytes = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(
		    X509_NAME_get_entry(name, index)));
	log_quote(text, NAME_TEXT_BYTES, bytes < 0 ? "" : (char *)utf8,
	    bytes < 0 ? 0 : bytes);
	OPENSSL_free(utf8);
}

static void
describe_host(const GENERAL_NAME *name, char *text, size_t bytes)
{
	int type;
	const ASN1_STRING *string = GENERAL_NAME_get0_value(name, &type);

	if (type == GEN_IPADD) {
		bool is_ipv4 = ASN1_STRING_length(string) == 4;

		if (!is_ipv4 && ASN1_STRING_length(string) != 16)
			text[0] = '\0';
		else
			inet_ntop(is_ipv4 ? AF_INET : AF_INET6,
			    ASN1_STRING_get0_data(string), text,
			    (socklen_t)bytes);
	} else if (type == GEN_DNS) {
		log_quote(text, bytes, (const char *)
		    ASN1_STRING_get0_data(string), ASN1_STRING_length(string));
	} else {
		text[0] = '\0';
	}
}

static void
describe_hosts(const X509 *x509, char text[HOSTS_TEXT_BYTES])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name,
	    NULL, NULL);
	size_t end = 0;

	text[0] = '\0';
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		char host[NAME_TEXT_BYTES];

		describe_host(sk_GENERAL_NAME_value(names, i), host,
		    sizeof(host));
		if (host[0] && end + strlen(host) + 3 < HOSTS_TEXT_BYTES)
			end += (size_t)snprintf(text + end,
			    HOSTS_TEXT_BYTES - end, "%s%s",
			    end > 0 ? ", " : "", host);
	}
	GENERAL_NAMES_free(names);
}

static void
describe_fingerprint(const X509 *x509, char text[FINGERPRINT_BYTES])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned bytes = 0;

	text[0] = '\0';
	if (X509_digest(x509, EVP_sha256(), digest, &bytes))
		for (unsigned i = 0; i < bytes; i++)
			sprintf(text + 3 * i, i + 1 < bytes ? "%02X:" : "%02X",
			    digest[i]);
}

static void
describe_end(const X509 *x509, struct facts *facts)
{
	const ASN1_TIME *end = X509_get0_notAfter(x509);
	struct tm when;
	int seconds;

	snprintf(facts->until, sizeof(facts->until), "?");
	if (ASN1_TIME_to_tm(end, &when))
		strftime(facts->until, sizeof(facts->until), "%Y-%m-%d",
		    &when);
	if (!ASN1_TIME_diff(&facts->days, &seconds, NULL, end))
		facts->days = 0;
	else if (seconds < 0)
		facts->days--;
}

static void
describe(const X509 *x509, const char *file, struct facts *facts)
{
	*facts = (struct facts){.file = file};
	describe_name(X509_get_subject_name(x509), facts->name);
	describe_name(X509_get_issuer_name(x509), facts->issuer);
	describe_hosts(x509, facts->hosts);
	describe_fingerprint(x509, facts->fingerprint);
	describe_end(x509, facts);
}

/* ---- what is wrong ---- */

static void
judge_time(struct shown *shown, const X509 *x509, const struct facts *facts)
{
	if (X509_cmp_current_time(X509_get0_notBefore(x509)) > 0)
		note_problem(shown, "%s is not valid yet: is the clock right?",
		    facts->file);
	if (facts->days < 0)
		note_problem(shown, "%s has ended on %s", facts->file,
		    facts->until);
	else if (facts->days < SOON_DAYS)
		note_problem(shown, "%s ends on %s, in %d days", facts->file,
		    facts->until, facts->days);
}

static void
judge_signature(struct shown *shown, X509 *x509, const char *file)
{
	if (!shown->authority)
		note_problem(shown, "%s cannot be verified: there is no %s",
		    file, CERTIFICATE_CA_FILE);
	else if (X509_verify(x509, X509_get0_pubkey(shown->authority)) != 1)
		note_problem(shown, "%s was not signed by %s", file,
		    CERTIFICATE_CA_FILE);
	ERR_clear_error();
}

/* Whether there is a key, and if so, whether it is the right one and safe. */
static bool
judge_key(struct shown *shown, const char *file, const char *key_file)
{
	struct certificate both = {0};
	struct error error = {0};
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", shown->directory, key_file);
	if (stat(path, &st)) {
		if (strcmp(key_file, CERTIFICATE_CA_KEY_FILE) != 0)
			note_problem(shown, "cannot find %s: %s", key_file,
			    strerror(errno));
		return false;
	}
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		note_problem(shown, "%s may be read by others: "
		    "chmod 600 %s", key_file, path);
	if (certificate_load(shown->directory, file, key_file, &both, &error))
		note_problem(shown, "%s%s%s", error.message,
		    error.hint[0] ? "; " : "", error.hint);
	certificate_free(&both);
	return true;
}

/* ---- printing ---- */

static void
print_facts(struct shown *shown, const struct facts *facts)
{
	json_t *object;

	if (!shown->json) {
		printf("%s%s\n", facts->file, facts->has_key ?
		    " (its key is here, too)" : "");
		printf("  name         %s\n", facts->name);
		printf("  signed by    %s\n", facts->issuer);
		if (facts->hosts[0])
			printf("  hosts        %s\n", facts->hosts);
		printf("  valid until  %s (%d days)\n", facts->until,
		    facts->days);
		printf("  SHA-256      %s\n", facts->fingerprint);
		return;
	}
	object = json_object();
	json_object_set_new(object, "file", json_string(facts->file));
	json_object_set_new(object, "name", json_string(facts->name));
	json_object_set_new(object, "issuer", json_string(facts->issuer));
	json_object_set_new(object, "hosts", json_string(facts->hosts));
	json_object_set_new(object, "valid-until", json_string(facts->until));
	json_object_set_new(object, "days-left", json_integer(facts->days));
	json_object_set_new(object, "sha256", json_string(facts->fingerprint));
	json_object_set_new(object, "has-key", json_boolean(facts->has_key));
	json_array_append_new(shown->list, object);
}

/* 0, or -1 if it could not be printed whole. */
static int
print_problems(struct shown *shown)
{
	json_t *problems, *whole;

	if (!shown->json) {
		for (unsigned i = 0; i < shown->problems_count; i++)
			printf("problem: %s\n", shown->problems[i]);
		return 0;
	}
	problems = json_array();
	for (unsigned i = 0; i < shown->problems_count; i++)
		json_array_append_new(problems,
		    json_string(shown->problems[i]));
	whole = json_object();
	json_object_set_new(whole, "certificates", shown->list);
	json_object_set_new(whole, "problems", problems);
	return json_text_print(whole);
}

static bool
is_there(const char *directory, const char *file)
{
	char path[PATH_MAX];
	struct stat st;

	return snprintf(path, sizeof(path), "%s/%s", directory, file) <
	    (int)sizeof(path) && stat(path, &st) == 0;
}

/* Whether there is such a certificate; if so, it is printed and judged. */
static bool
show_kind(struct shown *shown, const char *file, const char *key_file)
{
	struct error error;
	struct facts facts;
	X509 *x509;

	if (!is_there(shown->directory, file))
		return false;
	if (certificate_load_public(shown->directory, file, &x509, &error)) {
		note_problem(shown, "%s", error.message);
		return true;
	}
	describe(x509, file, &facts);
	judge_time(shown, x509, &facts);
	judge_signature(shown, x509, file);
	facts.has_key = judge_key(shown, file, key_file);
	print_facts(shown, &facts);
	X509_free(x509);
	return true;
}

int
tls_show(const char *directory, bool json, struct error *error)
{
	struct shown shown = {.directory = directory, .json = json};
	unsigned found = 0;
	int err = 0;

	if (json) {
		json_text_begin();
		shown.list = json_array();
	}
	/* That it is not there, or is no good, is said in its own place. */
	if (certificate_load_public(directory, CERTIFICATE_CA_FILE,
	    &shown.authority, error))
		shown.authority = NULL;
	for (size_t i = 0; i < KINDS; i++)
		found += show_kind(&shown, kinds[i].file, kinds[i].key_file);
	X509_free(shown.authority);
	if (found > 0)
		err = print_problems(&shown);
	if (found == 0) {
		json_decref(shown.list);
		error_set(error, -ENOENT, "there is no certificate in %s",
		    directory);
		error_hint(error, "make them: qnbd tls init --dir %s "
		    "--host NAME", directory);
		return -ENOENT;
	}
	return err || shown.problems_count > 0 ? 1 : 0;
}
