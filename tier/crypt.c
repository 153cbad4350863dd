// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Encryption of what leaves memory, around any tier.
 *
 * All encrypted tiers share one key, and a few cipher contexts made from it at
 * the start: the key itself is forgotten at once.  The tweak is the slot and the
 * number of the tier.
 *
 * The contexts hold the expanded key.  OpenSSL allocates them, so it is given an
 * allocator that takes them from an area which is locked in memory, left out of
 * core dumps and empty in a forked child.  That is done while they are made and
 * at no other time, by a flag of the thread.  What is freed there is wiped.
 *
 * A page is encrypted into a buffer of ours, for its owner may look at it while it
 * is written, and decrypted in place.  Contexts and buffers are taken and given
 * back; one who finds none waits.  Nothing is allocated after the start.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "crypt.h"
#include "lazy.h"
#include "say.h"

#define KEY_BYTES    64 /* two keys of 256 bits */
#define AREA_BYTES   (64UL << 10)
#define NR_CONTEXTS  8 /* for each way */
#define NR_BUFFERS   4
#define BUFFER_PAGES 64

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define SSL_CALLS(X)                \
	X(CRYPTO_set_mem_functions) \
	X(OPENSSL_cleanse)          \
	X(EVP_CIPHER_CTX_new)       \
	X(EVP_CIPHER_CTX_free)      \
	X(EVP_aes_256_xts)          \
	X(EVP_CipherInit_ex)        \
	X(EVP_CipherUpdate)

#define X(name) __typeof__(name) *name;
static struct {
	SSL_CALLS(X)
} ssl;
#undef X

/* Things of which there are a few. */
struct shelf {
	pthread_mutex_t lock;
	pthread_cond_t back;
	void *item[NR_CONTEXTS];
	unsigned int nr;
};

/* Made with the first encrypted tier, gone with the last. */
static struct {
	pthread_mutex_t lock;
	unsigned int users;
	u64 tiers; /* ever */
	struct shelf encrypt, decrypt, buffers;
	void *contexts[2 * NR_CONTEXTS];
	char *memory; /* of the buffers */
} engine = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct tier_crypt {
	struct tier *inner;
	u64 nr; /* in the tweak: no two have the same */
};

/* ---- memory for keys ------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	char *start;
	size_t used;
	unsigned int live;
} area = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __thread bool in_area;

/* Each piece begins with its size. */
#define PIECE_HEAD 64

static void *area_alloc(size_t size)
{
	size_t need = (size + PIECE_HEAD + 63) & ~(size_t)63;
	char *piece = NULL;

	pthread_mutex_lock(&area.lock);
	if (size < AREA_BYTES && need <= AREA_BYTES - area.used) {
		piece = area.start + area.used;
		*(size_t *)piece = size;
		piece += PIECE_HEAD;
		area.used += need;
		area.live++;
	}
	pthread_mutex_unlock(&area.lock);
	return piece;
}

static bool area_has(const void *p)
{
	return area.start && (const char *)p >= area.start &&
	       (const char *)p < area.start + AREA_BYTES;
}

static size_t area_size(const void *p)
{
	return *(const size_t *)((const char *)p - PIECE_HEAD);
}

static void area_free(void *p)
{
	ssl.OPENSSL_cleanse(p, area_size(p));
	pthread_mutex_lock(&area.lock);
	if (!--area.live)
		area.used = 0;
	pthread_mutex_unlock(&area.lock);
}

static void *ssl_malloc(size_t size, const char *file, int line)
{
	(void)file, (void)line;
	return in_area ? area_alloc(size) : malloc(size);
}

static void ssl_free(void *p, const char *file, int line)
{
	(void)file, (void)line;
	if (area_has(p))
		area_free(p);
	else
		free(p);
}

static void *ssl_realloc(void *p, size_t size, const char *file, int line)
{
	void *to;

	if (!area_has(p) && !(in_area && !p))
		return realloc(p, size);
	to = ssl_malloc(size, file, line);
	if (to && p) {
		memcpy(to, p, size < area_size(p) ? size : area_size(p));
		area_free(p);
	}
	return to;
}

/* Returns NULL or why not; errno may say more. */
static const char *area_make(void)
{
	char *p;

	if (area.start)
		return NULL;
	p = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return strerror(errno);
	if (mlock(p, AREA_BYTES)) {
		munmap(p, AREA_BYTES);
		return "no memory can be locked for the key (raise 'ulimit -l')";
	}
	madvise(p, AREA_BYTES, MADV_DONTDUMP);
	madvise(p, AREA_BYTES, MADV_WIPEONFORK);
	/* The first thing OpenSSL is asked for in this process. */
	if (!ssl.CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free)) {
		munmap(p, AREA_BYTES);
		return "OpenSSL is in use here for something else (do without encryption)";
	}
	area.start = p;
	return NULL;
}

/* ---- the engine ------------------------------------------------------ */

static void *take(struct shelf *s)
{
	void *item;

	pthread_mutex_lock(&s->lock);
	while (!s->nr)
		pthread_cond_wait(&s->back, &s->lock);
	item = s->item[--s->nr];
	pthread_mutex_unlock(&s->lock);
	return item;
}

static void give(struct shelf *s, void *item)
{
	pthread_mutex_lock(&s->lock);
	s->item[s->nr++] = item;
	pthread_cond_signal(&s->back);
	pthread_mutex_unlock(&s->lock);
}

static void shelf_make(struct shelf *s)
{
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->back, NULL);
	s->nr = 0;
}

static void engine_stop(void)
{
	for (unsigned int i = 0; i < 2 * NR_CONTEXTS; i++) {
		ssl.EVP_CIPHER_CTX_free(engine.contexts[i]);
		engine.contexts[i] = NULL;
	}
	if (engine.memory)
		munmap(engine.memory, NR_BUFFERS * BUFFER_PAGES * SWAP_PAGE_SIZE);
	engine.memory = NULL;
}

/* A context with the key in it, or NULL. */
static void *context_make(const unsigned char *key, bool encrypt)
{
	static const unsigned char tweak[16];
	EVP_CIPHER_CTX *c = ssl.EVP_CIPHER_CTX_new();

	if (c && ssl.EVP_CipherInit_ex(c, ssl.EVP_aes_256_xts(), NULL, key, tweak, encrypt))
		return c;
	ssl.EVP_CIPHER_CTX_free(c);
	return NULL;
}

static bool contexts_make(void)
{
	unsigned char *key = area_alloc(KEY_BYTES);
	bool good = key && getrandom(key, KEY_BYTES, 0) == KEY_BYTES;

	/* What OpenSSL makes for itself the first time is not to be in the area. */
	for (int encrypt = 0; good && encrypt < 2; encrypt++) {
		unsigned char other[KEY_BYTES] = { 1 };
		void *c = context_make(other, encrypt);

		good = c;
		ssl.EVP_CIPHER_CTX_free(c);
	}
	in_area = true;
	for (unsigned int i = 0; good && i < 2 * NR_CONTEXTS; i++) {
		struct shelf *s = i < NR_CONTEXTS ? &engine.encrypt : &engine.decrypt;

		engine.contexts[i] = context_make(key, s == &engine.encrypt);
		good = engine.contexts[i];
		if (good)
			give(s, engine.contexts[i]);
	}
	in_area = false;
	if (key)
		area_free(key);
	return good;
}

static const char *engine_start(void)
{
#define X(name) { #name, (void **)&ssl.name },
	static const struct lazy_call calls[] = { SSL_CALLS(X) };
#undef X
	const char *why = lazy_load("libcrypto.so.3", calls, sizeof(calls) / sizeof(*calls));

	if (!why)
		why = area_make();
	if (why)
		return why;
	shelf_make(&engine.encrypt);
	shelf_make(&engine.decrypt);
	shelf_make(&engine.buffers);
	/* Takes memory only as far as it is used. */
	engine.memory = mmap(NULL, NR_BUFFERS * BUFFER_PAGES * SWAP_PAGE_SIZE,
			     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			     -1, 0);
	if (engine.memory == MAP_FAILED)
		engine.memory = NULL;
	for (size_t i = 0; engine.memory && i < NR_BUFFERS; i++)
		give(&engine.buffers, engine.memory + i * BUFFER_PAGES * SWAP_PAGE_SIZE);
	if (engine.memory && contexts_make())
		return NULL;
	engine_stop();
	return "AES-256-XTS cannot be had from OpenSSL (is there memory?)";
}

static bool cipher(EVP_CIPHER_CTX *c, const struct tier_crypt *t, u64 slot, void *to,
		   const void *from)
{
	u64 tweak[2] = { slot, t->nr };
	int len = 0;

	return ssl.EVP_CipherInit_ex(c, NULL, NULL, NULL, (unsigned char *)tweak, -1) &&
	       ssl.EVP_CipherUpdate(c, to, &len, from, SWAP_PAGE_SIZE) &&
	       len == (int)SWAP_PAGE_SIZE;
}

/* ---- ops ------------------------------------------------------------- */

/* As many of @io as a buffer holds. */
static void write_some(struct tier_crypt *t, char *buffer, struct swap_io *io, unsigned int nr)
{
	EVP_CIPHER_CTX *c = take(&engine.encrypt);
	struct swap_io hidden[BUFFER_PAGES];
	bool good = true;

	for (unsigned int i = 0; i < nr; i++) {
		hidden[i] =
			(struct swap_io){ .slot = io[i].slot, .data = buffer + i * SWAP_PAGE_SIZE };
		good &= cipher(c, t, io[i].slot, hidden[i].data, io[i].data);
	}
	give(&engine.encrypt, c);
	/* A page that could not be hidden does not go out. */
	if (good)
		t->inner->ops->write(t->inner->priv, hidden, nr);
	for (unsigned int i = 0; i < nr; i++)
		io[i].error = good ? hidden[i].error : -EIO;
}

static void crypt_write(void *priv, struct swap_io *io, unsigned int nr)
{
	char *buffer = take(&engine.buffers);
	bool away = false;

	for (unsigned int n; nr && !away; io += n, nr -= n) {
		n = nr < BUFFER_PAGES ? nr : BUFFER_PAGES;
		write_some(priv, buffer, io, n);
		away = io[n - 1].error == -EAGAIN;
	}
	give(&engine.buffers, buffer);
	/* A server that is away was waited for; not once more for each buffer. */
	for (; nr; io++, nr--)
		io->error = -EAGAIN;
}

static void crypt_read(void *priv, struct swap_io *io, unsigned int nr)
{
	struct tier_crypt *t = priv;
	EVP_CIPHER_CTX *c;

	t->inner->ops->read(t->inner->priv, io, nr);
	c = take(&engine.decrypt);
	for (unsigned int i = 0; i < nr; i++)
		if (!io[i].error && !cipher(c, t, io[i].slot, io[i].data, io[i].data))
			io[i].error = -EIO;
	give(&engine.decrypt, c);
}

static int crypt_discard(void *priv, u64 slot, u64 nr)
{
	struct tier_crypt *t = priv;

	return t->inner->ops->discard ? t->inner->ops->discard(t->inner->priv, slot, nr) : 0;
}

static bool crypt_away(void *priv)
{
	struct tier_crypt *t = priv;

	return t->inner->ops->away && t->inner->ops->away(t->inner->priv);
}

static const struct swap_tier_ops crypt_ops = {
	.write = crypt_write,
	.read = crypt_read,
	.discard = crypt_discard,
	.away = crypt_away,
};

/* ---- coming and going ------------------------------------------------ */

static void crypt_shrink(void *priv)
{
	struct tier_crypt *t = priv;

	tier_shrink(t->inner);
}

static void crypt_close(void *priv)
{
	struct tier_crypt *t = priv;

	tier_close(t->inner);
	free(t);
	pthread_mutex_lock(&engine.lock);
	if (!--engine.users)
		engine_stop();
	pthread_mutex_unlock(&engine.lock);
}

int tier_crypt(struct tier *t, struct tier *inner, char *err, size_t errlen)
{
	struct tier_crypt *c = malloc(sizeof(*c));
	const char *why = NULL;

	if (!c)
		return tier_say(err, errlen, ENOMEM, "tier %s: %s", inner->name, strerror(ENOMEM));
	pthread_mutex_lock(&engine.lock);
	if (!engine.users)
		why = engine_start();
	if (!why) {
		engine.users++;
		c->nr = ++engine.tiers;
	}
	pthread_mutex_unlock(&engine.lock);
	if (why) {
		free(c);
		return tier_say(err, errlen, ENOSYS, "tier %s: encryption: %s", inner->name, why);
	}
	c->inner = inner;
	*t = *inner;
	t->ops = &crypt_ops;
	t->priv = c;
	t->shrink = crypt_shrink;
	t->close = crypt_close;
	return 0;
}
