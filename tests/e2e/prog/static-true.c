/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program no library can be preloaded into. */
int main(void)
{
	return 0;
}
