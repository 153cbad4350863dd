// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program whose library was at work before it. */
extern int early_done;

int main(void)
{
	return early_done ? 0 : 1;
}
