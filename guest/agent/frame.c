#include "frame.h"

#include "protocol.h"

uint16_t get_u16(const uint8_t *data)
{
	return (uint16_t)(data[0] | data[1] << 8);
}

uint32_t get_u32(const uint8_t *data)
{
	return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
	       (uint32_t)data[3] << 24;
}

void put_u32(uint8_t *out, uint32_t value)
{
	out[0] = (uint8_t)value;
	out[1] = (uint8_t)(value >> 8);
	out[2] = (uint8_t)(value >> 16);
	out[3] = (uint8_t)(value >> 24);
}

long frame_parse(const uint8_t *data, size_t length, struct frame *out)
{
	if (length < FRAME_HEADER)
		return 0;
	out->length = get_u32(data);
	out->session = get_u32(data + 4);
	out->type = data[8];
	out->flags = data[9];
	out->payload = data + FRAME_HEADER;
	if (out->length > FRAME_PAYLOAD_MAX || get_u16(data + 10) != 0)
		return -1;
	if (length - FRAME_HEADER < out->length)
		return 0;
	return (long)(FRAME_HEADER + out->length);
}

void frame_header(uint8_t *out, uint32_t session, uint8_t type, uint8_t flags, uint32_t length)
{
	put_u32(out, length);
	put_u32(out + 4, session);
	out[8] = type;
	out[9] = flags;
	out[10] = 0;
	out[11] = 0;
}

bool credit_add(uint32_t *credit, uint32_t more)
{
	if (more > CREDIT_MAX || *credit > CREDIT_MAX - more)
		return false;
	*credit += more;
	return true;
}
